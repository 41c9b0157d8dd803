//! A PostgreSQL server that costs next to nothing, for benchmarks: what the user `app` asks is answered from
//! memory, each query with one row. Whoever else logs in (a monitor, say) is connected to a real server, so that
//! a proxy in front of it sees a real cluster.
//!
//! `cargo run --release --example canned -- --node 7001=127.0.0.1:5432`

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use clap::Parser;
use pgweir::wire::backend::TransactionStatus;
use pgweir::wire::frame::header;
use pgweir::wire::writers;

#[derive(Parser)]
struct Args {
    /// Where to listen, on 127.0.0.1; once for each node: PORT=HOST:PORT of the real server behind it
    #[arg(long = "node", value_parser = node)]
    nodes: Vec<(u16, String)>,
    /// Whose queries are answered from memory
    #[arg(long, default_value = "app")]
    user: String,
}

/// A user's queries carry no large messages here. In bytes.
const MESSAGE_MAX: usize = 1024 * 1024;

fn node(text: &str) -> Result<(u16, String), String> {
    let (port, behind) = text.split_once('=').ok_or("expected PORT=HOST:PORT")?;
    Ok((port.parse().map_err(|_| "expected PORT=HOST:PORT")?, behind.to_owned()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut threads = Vec::new();
    for (port, behind) in args.nodes {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let user = args.user.clone();
        threads.push(thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (behind, user) = (behind.clone(), user.clone());
                // A thread per connection that blocks: no other way needs fewer system calls.
                thread::spawn(move || drop(serve(stream, &behind, &user)));
            }
        }));
    }
    println!("ready");
    // It ends with its standard input, as the development cluster does.
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn serve(mut client: TcpStream, behind: &str, user: &str) -> io::Result<()> {
    client.set_nodelay(true)?;
    let packet = loop {
        let mut packet = vec![0; 4];
        client.read_exact(&mut packet)?;
        let len = packet.iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
        packet.resize(len.clamp(8, 10_000), 0);
        client.read_exact(&mut packet[4..])?;
        match packet[4..8] {
            // SSLRequest, GSSENCRequest: neither is to be had here.
            [4, 210, 22, 47 | 48] => client.write_all(b"N")?,
            _ => break packet,
        }
    };
    let mine = [b"user\0", user.as_bytes(), b"\0"].concat();
    let is_ours = packet[4..6] == [0, 3] && packet.windows(mine.len()).any(|part| part == mine);
    if is_ours { answer(client) } else { pass_on(client, behind, &packet) }
}

fn pass_on(client: TcpStream, behind: &str, packet: &[u8]) -> io::Result<()> {
    let mut server = TcpStream::connect(behind)?;
    server.set_nodelay(true)?;
    server.write_all(packet)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        drop(io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Write));
    });
    let mut client = client;
    io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Both)
}

/// The answers, made once per connection.
struct Answers {
    row: Vec<u8>,
    columns: Vec<u8>,
    one: Vec<u8>,
    described: Vec<u8>,
}

impl Answers {
    fn new() -> Answers {
        let (mut row, mut columns, mut one, mut described) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        writers::text_row(&mut row, [Some("42")]);
        writers::text_columns(&mut columns, &["abalance"]);
        writers::command_complete(&mut one, "SELECT 1");
        // ParameterDescription: one int4.
        writers::message(&mut described, b't', |body| body.extend_from_slice(&[0, 1, 0, 0, 0, 23]));
        Answers { row, columns, one, described }
    }

    fn to(&self, message: &[u8], out: &mut Vec<u8>) {
        let ready = writers::ready(TransactionStatus::Idle);
        match message[0] {
            b'Q' if is_select(&message[5..]) => {
                [&self.columns, &self.row, &self.one]
                    .into_iter()
                    .for_each(|part| out.extend_from_slice(part));
                out.extend_from_slice(&ready);
            }
            b'Q' => {
                writers::command_complete(out, "SET");
                out.extend_from_slice(&ready);
            }
            b'P' => writers::message(out, b'1', |_| {}),
            b'B' => writers::message(out, b'2', |_| {}),
            b'C' => writers::message(out, b'3', |_| {}),
            b'D' => {
                if message.get(5) == Some(&b'S') {
                    out.extend_from_slice(&self.described);
                }
                out.extend_from_slice(&self.columns);
            }
            b'E' => [&self.row, &self.one].into_iter().for_each(|part| out.extend_from_slice(part)),
            b'S' => out.extend_from_slice(&ready),
            _ => {}
        }
    }
}

fn is_select(text: &[u8]) -> bool {
    text.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"select"))
}

fn answer(mut client: TcpStream) -> io::Result<()> {
    let mut out = Vec::new();
    writers::message(&mut out, b'R', |body| body.extend_from_slice(&[0; 4]));
    for (name, value) in [
        ("server_version", "17.0"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
        ("integer_datetimes", "on"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("in_hot_standby", "off"),
    ] {
        writers::parameter_status(&mut out, name, value);
    }
    writers::key_data(&mut out, 1, &[0; 4]);
    out.extend_from_slice(&writers::ready(TransactionStatus::Idle));
    client.write_all(&out)?;
    let answers = Answers::new();
    let mut data = vec![0; 64 * 1024];
    let mut end = 0;
    loop {
        match client.read(&mut data[end..])? {
            0 => return Ok(()),
            len => end += len,
        }
        out.clear();
        let mut done = 0;
        while let Ok(Some(head)) = header(&data[done..end], MESSAGE_MAX) {
            if done + head.frame_len > end {
                break;
            }
            if head.tag == b'X' {
                return Ok(());
            }
            answers.to(&data[done..done + head.frame_len], &mut out);
            done += head.frame_len;
        }
        data.copy_within(done..end, 0);
        end -= done;
        if end == data.len() {
            data.resize(data.len() * 2, 0);
        }
        client.write_all(&out)?;
    }
}
