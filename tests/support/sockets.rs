//! What the kernel knows of the sockets of a process (proc(5)).

use std::fs;

/// Has this process bytes to read that have come over TCP?
pub fn has_unread(pid: i32) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(Result::ok);
    let inode = |path: std::path::PathBuf| {
        Some(path.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    let open: Vec<String> = open.filter_map(|file| inode(fs::read_link(file.path()).ok()?)).collect();
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    sockets.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let unread = fields[4].split(':').nth(1).is_some_and(|unread| unread != "00000000");
        // 01: established; a listening socket's number is something else.
        fields[3] == "01" && unread && open.iter().any(|inode| inode == fields[9])
    })
}
