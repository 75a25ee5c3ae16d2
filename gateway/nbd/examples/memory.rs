//! Serves disks in memory: `memory --unix PATH | --tcp ADDRESS [--size BYTES] [NAME...]`. For trying clients and for
//! measuring what the gateway costs without a cluster behind it.

#[path = "../tests/model/mod.rs"]
mod model;

use std::process::ExitCode;
use std::rc::Rc;

use model::{Disks, Memory};
use nacre_nbd::{Config, Server};

struct Arguments {
    unix: Vec<String>,
    tcp: Vec<String>,
    size: usize,
    names: Vec<String>,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments { unix: Vec::new(), tcp: Vec::new(), size: 1 << 30, names: Vec::new() };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--unix" => parsed.unix.push(value()?),
            "--tcp" => parsed.tcp.push(value()?),
            "--size" => parsed.size = value()?.parse().map_err(|error| format!("--size: {error}"))?,
            _ => parsed.names.push(argument),
        }
    }
    if parsed.unix.is_empty() && parsed.tcp.is_empty() {
        return Err("nothing to listen on: give --unix PATH or --tcp ADDRESS".to_owned());
    }
    if parsed.names.is_empty() {
        parsed.names.push(String::new());
    }
    Ok(parsed)
}

async fn serve(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let disks =
        arguments.names.into_iter().map(|name| (name, Rc::new(Memory::new(arguments.size)))).collect();
    let server = Server::new(Rc::new(Disks(disks)), Config::default())?;
    for path in arguments.unix {
        server.serve_unix(path).await?;
    }
    for address in arguments.tcp {
        println!("listening on {}", server.serve_tcp(address.as_str()).await?);
    }
    println!("ready");
    tokio::signal::ctrl_c().await?;
    server.stop().await;
    println!("{:?}", server.stats());
    Ok(())
}

fn main() -> ExitCode {
    let run = || -> Result<(), Box<dyn std::error::Error>> {
        let arguments = parse(std::env::args().skip(1))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, serve(arguments))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memory: {error}");
            ExitCode::FAILURE
        }
    }
}
