//! Records what a client says after its login, as text for `tests/conversations`.
//!
//! `cargo run --example record -- PORT FOLDER` listens on a port of its own, which it prints, and passes
//! everything on to PostgreSQL on PORT. Each connection becomes a file in FOLDER.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/conversation.rs"]
mod conversation;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

/// What the client was told and has not answered yet, and where its words go.
struct Record {
    answers: Vec<u8>,
    file: File,
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, port, folder] = &arguments[..] else { panic!("usage: record PORT FOLDER") };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    for (number, client) in listener.incoming().enumerate() {
        let server = TcpStream::connect(format!("127.0.0.1:{port}"))?;
        let file = File::create(Path::new(folder).join(format!("{number:03}.txt")))?;
        let client = client?;
        thread::spawn(move || match serve(client, server, file) {
            Ok(()) => {}
            Err(error) => eprintln!("connection {number}: {error}"),
        });
    }
    Ok(())
}

fn serve(mut client: TcpStream, mut server: TcpStream, mut file: File) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let startup = loop {
        let body = untagged(&mut client)?;
        match u32::from_be_bytes([body[0], body[1], body[2], body[3]]) {
            // Encryption: not here.
            80_877_103 | 80_877_104 => client.write_all(b"N")?,
            80_877_102 => {
                server.write_all(&[&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat())?;
                return Ok(());
            }
            _ => break body,
        }
    };
    let words: Vec<String> =
        startup[4..].split(|byte| *byte == 0).map(|word| word.escape_ascii().to_string()).collect();
    for pair in words.chunks(2).filter(|pair| pair.len() == 2 && !pair[0].is_empty()) {
        if pair[0] != "user" && pair[0] != "database" {
            writeln!(file, "login {} \"{}\"", pair[0], pair[1])?;
        }
    }
    server.write_all(&[&(startup.len() as u32 + 4).to_be_bytes()[..], &startup].concat())?;
    let record = Arc::new(Mutex::new(Record { answers: vec![], file }));
    let (theirs, mut from, mut to) = (record.clone(), server.try_clone()?, client.try_clone()?);
    thread::spawn(move || answers(&theirs, &mut from, &mut to));
    loop {
        let (tag, body) = tagged(&mut client)?;
        if tag != b'p' {
            let mut record = record.lock().unwrap();
            let answers = std::mem::take(&mut record.answers);
            if !answers.is_empty() {
                writeln!(record.file, "wait \"{}\"", answers.escape_ascii())?;
            }
            writeln!(record.file, "{}", conversation::line_of(tag, &body))?;
        }
        server.write_all(&[&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), &body].concat())?;
        if tag == b'X' {
            return Ok(());
        }
    }
}

fn answers(record: &Mutex<Record>, server: &mut TcpStream, client: &mut TcpStream) -> io::Result<()> {
    let mut greeted = false;
    loop {
        let (tag, body) = tagged(server)?;
        let repeated = record.lock().unwrap().answers.last() == Some(&tag) && matches!(tag, b'D' | b'd');
        if greeted && !repeated && !matches!(tag, b'S' | b'N') {
            record.lock().unwrap().answers.push(tag);
        }
        greeted |= tag == b'Z';
        client.write_all(&[&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), &body].concat())?;
    }
}

fn untagged(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn tagged(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut tag = [0];
    stream.read_exact(&mut tag)?;
    Ok((tag[0], untagged(stream)?))
}
