//! Pure: a host in a `hosts.toml` of containerd. Hosts are asked in the order of the file, so ours
//! is put before the others; one that stands there already stays where people have it.

use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::{EditError, toml_text};

const CAPABILITIES: [&str; 2] = ["pull", "resolve"];

/// Whether `text` names the server that is asked after the hosts.
pub(crate) fn has_server(text: &str) -> bool {
    text.parse::<DocumentMut>()
        .is_ok_and(|document| document.contains_key("server"))
}

pub(super) fn put_in(url: &str, server: Option<&str>, text: &str) -> Result<String, EditError> {
    let mut document = toml_text::parse(text)?;
    let is_new = document.is_empty();
    if let Some(server) = server
        && !document.contains_key("server")
    {
        document.insert("server", value(server));
    }
    let hosts = match document.get("host") {
        None => 0,
        Some(hosts) => hosts.as_table_like().map_or(0, |hosts| hosts.len()),
    };
    let host = document.entry("host").or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let host = host.as_table_mut().ok_or_else(|| {
        EditError::Shape("host must be written as tables, as in [host.\"https://…\"]".to_owned())
    })?;
    if !host.contains_key(url) {
        let mut ours = Table::new();
        ours.insert("capabilities", value(Array::from_iter(CAPABILITIES)));
        let is_first = hosts == 0 && is_new && server.is_none();
        ours.decor_mut()
            .set_prefix(if is_first { "" } else { "\n" });
        if 0 < hosts {
            // Before every other table, whatever their order is.
            ours.set_position(Some(0));
        }
        host.insert(url, Item::Table(ours));
    }
    Ok(document.to_string())
}

pub(super) fn take_out(url: &str, server: Option<&str>, text: &str) -> Result<String, EditError> {
    let mut document = toml_text::parse(text)?;
    let host = document.get_mut("host").and_then(Item::as_table_like_mut);
    let ours = host.and_then(|host| host.remove(url));
    if ours.is_none() {
        return Ok(text.to_owned());
    }
    toml_text::prune(document.as_table_mut(), &["host"]);
    if server.is_some() && document.get("server").and_then(Item::as_str) == server {
        document.remove("server");
    }
    Ok(document.to_string())
}

/// Names the certificate of an authority that the server itself shows.
pub(super) fn trust(
    certificate: &str,
    server: Option<&str>,
    text: &str,
) -> Result<String, EditError> {
    let mut document = toml_text::parse(text)?;
    if let Some(server) = server
        && !document.contains_key("server")
    {
        document.insert("server", value(server));
    }
    toml_text::add_to_list(document.as_table_mut(), "ca", certificate)?;
    Ok(document.to_string())
}

pub(super) fn distrust(
    certificate: &str,
    server: Option<&str>,
    text: &str,
) -> Result<String, EditError> {
    let mut document = toml_text::parse(text)?;
    if !toml_text::remove_from_list(document.as_table_mut(), "ca", certificate) {
        return Ok(text.to_owned());
    }
    if server.is_some() && document.get("server").and_then(Item::as_str) == server {
        document.remove("server");
    }
    Ok(document.to_string())
}
