//! Which Debian mirrors the machine already uses, read from apt's own source files.
//!
//! The project names no mirror: a machine behind a company's mirror keeps using that one. Both formats are read, the
//! one-line `.list` and the stanza `.sources` (deb822). What comes out are *candidates*: whether an address really
//! serves Debian is settled by apt itself, which accepts only an index signed by Debian.
//!
//! Main functions: [`candidates`], and the pure parsers [`one_line`] and [`deb822`] behind it.

use std::fs;
use std::path::{Path, PathBuf};

/// Mirror addresses that may serve Debian's main archive, the likeliest first, without repetition.
///
/// `directory` is `/etc/apt` on a real machine.
pub(crate) fn candidates(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in source_files(directory) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let uris = match path.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => deb822(&text),
            _ => one_line(&text),
        };
        for uri in uris {
            if is_plausible(&uri) && !found.contains(&uri) {
                found.push(uri);
            }
        }
    }
    found
}

/// The addresses of a one-line style file: `deb [options] URI suite component...`.
fn one_line(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter_map(|line| one_line_uri(line).map(str::to_owned)).collect()
}

/// The addresses of the enabled `deb` stanzas of a deb822 file.
fn deb822(text: &str) -> Vec<String> {
    let without_comments: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let mut uris = Vec::new();
    for stanza in without_comments.split(|line| line.trim().is_empty()) {
        let enabled = field(stanza, "enabled").is_none_or(|value| value.trim() != "no");
        let binary =
            field(stanza, "types").is_some_and(|value| value.split_whitespace().any(|word| word == "deb"));
        if enabled && binary {
            let value = field(stanza, "uris").unwrap_or_default();
            uris.extend(value.split_whitespace().map(str::to_owned));
        }
    }
    uris
}

/// Debian's main archive ends in `/debian` on every mirror known to its mirror network; a `mirror+file:` list of a
/// cloud image is named after it. The security archive holds neither QEMU nor kernels for our purpose.
fn is_plausible(uri: &str) -> bool {
    let name = uri.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let fetched =
        ["http://", "https://", "file:", "copy:", "mirror"].iter().any(|scheme| uri.starts_with(scheme));
    fetched
        && !uri.contains("security")
        && (name == "debian" || name == "debian.list" || uri.contains("/debian/"))
}

fn source_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = vec![directory.join("sources.list")];
    let parts = fs::read_dir(directory.join("sources.list.d")).into_iter().flatten().flatten();
    let mut parts: Vec<PathBuf> = parts.map(|entry| entry.path()).collect();
    parts.sort();
    files.extend(parts);
    files
}

fn one_line_uri(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    rest.split_whitespace().next()
}

/// The value of a field of a stanza, continuation lines included.
fn field(stanza: &[&str], name: &str) -> Option<String> {
    let mut lines = stanza.iter();
    let first = lines.by_ref().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })?;
    let continued = lines.take_while(|line| line.starts_with([' ', '\t']));
    Some(continued.fold(first.to_owned(), |value, line| value + " " + line.trim()))
}

#[cfg(test)]
mod tests {
    use super::{deb822, is_plausible, one_line};

    #[test]
    fn one_line_entry_with_options_gives_its_uri() {
        let text =
            "# comment\ndeb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian trixie main # tail\n";
        assert_eq!(one_line(text), ["http://mirror.example/debian"]);
    }

    #[test]
    fn source_packages_are_no_binary_mirror() {
        assert!(one_line("deb-src http://mirror.example/debian trixie main\n").is_empty());
        assert!(deb822("Types: deb-src\nURIs: http://mirror.example/debian\n").is_empty());
    }

    #[test]
    fn stanza_with_comment_inside_and_two_uris_gives_both() {
        let text = "Types: deb\n# URIs: http://old.example/debian\nURIs: http://a.example/debian\n http://b.example/debian\nSuites: trixie\n";
        assert_eq!(deb822(text), ["http://a.example/debian", "http://b.example/debian"]);
    }

    #[test]
    fn disabled_stanza_is_skipped() {
        let text = "Enabled: no\nTypes: deb\nURIs: http://a.example/debian\n\nTypes: deb\nURIs: http://b.example/debian/\n";
        assert_eq!(deb822(text), ["http://b.example/debian/"]);
    }

    #[test]
    fn only_the_main_archive_is_plausible() {
        assert!(is_plausible("http://mirror.example/debian/"));
        assert!(is_plausible("mirror+file:///etc/apt/mirrors/debian.list"));
        assert!(is_plausible("http://snapshot.example/archive/debian/20260101T000000Z/"));
        assert!(!is_plausible("http://mirror.example/debian-security"));
        assert!(!is_plausible("https://vendor.example/apt"));
        assert!(!is_plausible("cdrom:[Debian GNU/Linux 13]/debian"));
    }
}
