//! The binary `darter`.

use std::process::ExitCode;

fn main() -> ExitCode {
    appliance::command::main()
}
