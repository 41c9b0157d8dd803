//! The pure parts' work, to be counted by callgrind (`scripts/bench-instructions`): `instructions NAME TIMES`.
//! Counting it twice with different TIMES takes out what it costs to start. Without arguments it lists the names.

#![allow(missing_docs)]

#[path = "work/pieces.rs"]
mod work;

fn main() {
    // `cargo bench` and `cargo test` call it with a flag of their own: then it runs each piece once.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let times: usize = args.get(1).and_then(|times| times.parse().ok()).unwrap_or(1);
    for (name, mut once) in work::all() {
        match args.first() {
            None => println!("{name}"),
            Some(wanted) if wanted == name => (0..times).for_each(|_| once()),
            Some(_) => {}
        }
    }
}
