//! Cost of the messenger: round trip with one request in flight, CPU time per side and 4 KiB RPC with 32 in flight, and
//! bulk throughput, between two threads with a reactor each.
//!
//! ```text
//! cargo run --release -p nacre-benches --bin messenger_rpc [seconds per step]
//! ```

use bytes::Bytes;
use mimalloc::MiMalloc;
use nacre_runtime::messenger::{Messenger, MessengerConfig, MessengerEvent};
use nacre_runtime::tls::{ClusterCa, Credentials, Validity};
use nacre_types::{Epoch, OsdId, RequestId};
use nacre_wire::op::{OsdOp, OsdOpReply};
use nacre_wire::{Address, Data, Message, ObjectName, Packet};
use std::future::Future;
use std::time::{Duration, Instant};

/// As in the nacre binary: with glibc's allocator large payloads cost twice as much.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn credentials(ca: &ClusterCa, entity: &str) -> Credentials {
    let entity = entity.parse().expect("an entity name");
    let (cert_pem, key_pem) = ca.issue(&entity, Validity::default()).expect("a certificate");
    let ca_pem = ca.certificate_pem().into();
    Credentials { fsid: ca.fsid().into(), entity, monitors: vec![], ca_pem, cert_pem, key_pem }
}

fn reactor<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Answers operations until its peer is gone; reports CPU time when asked with an empty object name.
async fn serve(config: MessengerConfig, started: std::sync::mpsc::Sender<String>) {
    let messenger = Messenger::bind(config).expect("a free port");
    started.send(messenger.local_addr().to_string()).expect("the client waits");
    loop {
        match messenger.next_event().await {
            MessengerEvent::Received { from, packet } => {
                let reply = match &packet.message {
                    Message::OsdOp(op) if op.object.is_none() => {
                        let cpu = Bytes::copy_from_slice(&(thread_cpu().as_nanos() as u64).to_le_bytes());
                        Packet::new(packet.epoch, OsdOpReply::default()).with(Data::plain(cpu))
                    }
                    // A read's reply carries data, a write's does not.
                    Message::OsdOp(op) if op.no_wait => {
                        Packet::new(packet.epoch, OsdOpReply::default()).with(packet.data)
                    }
                    _ => Packet::new(packet.epoch, OsdOpReply::default()),
                };
                messenger.send(Address::Session(from.session), reply.request(packet.request));
            }
            MessengerEvent::SessionClosed { .. } => break,
            _ => {}
        }
    }
    messenger.shutdown().await;
}

struct Client {
    messenger: Messenger,
    to: Address,
}

impl Client {
    fn request(&self, seq: u64, echo: bool, data: &Data) {
        let object = ObjectName { name: "rbd_data.1234.00000000000000ff".into(), ..ObjectName::default() };
        let op = OsdOp { object: Some(object), no_wait: echo, ..OsdOp::default() };
        let request = RequestId { seq, ..RequestId::default() };
        self.messenger.send(self.to.clone(), Packet::new(Epoch(1), op).request(request).with(data.clone()));
    }

    async fn reply(&self) -> Packet {
        loop {
            match self.messenger.next_event().await {
                MessengerEvent::Received { packet, .. } => return packet,
                MessengerEvent::SessionOpened(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn server_cpu(&self) -> Duration {
        self.messenger.send(self.to.clone(), Packet::new(Epoch(1), OsdOp::default()));
        let bytes = self.reply().await.data.bytes;
        Duration::from_nanos(u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")))
    }

    async fn step(&self, name: &str, in_flight: u64, size: usize, echo: bool, time: Duration) {
        let data = Data::checksummed(0, vec![7; size].into());
        let server_before = self.server_cpu().await;
        let (start, cpu_before) = (Instant::now(), thread_cpu());
        let mut sent = in_flight;
        for seq in 0..in_flight {
            self.request(seq, echo, &data);
        }
        let mut done = 0;
        while done < sent {
            self.reply().await;
            done += 1;
            if start.elapsed() < time {
                self.request(sent, echo, &data);
                sent += 1;
            }
        }
        let (elapsed, cpu) = (start.elapsed(), thread_cpu() - cpu_before);
        let server_cpu = self.server_cpu().await - server_before;
        let per = |time: Duration| time.as_secs_f64() * 1e6 / done as f64;
        println!(
            "{name:28} {in_flight:3} in flight  {:8.1} us each  client CPU {:7.2} us  server CPU {:7.2} us  {:8.1} MB/s",
            per(elapsed) * in_flight as f64,
            per(cpu),
            per(server_cpu),
            done as f64 * size as f64 / elapsed.as_secs_f64() / 1e6,
        );
    }
}

fn main() {
    let seconds: f64 = std::env::args().nth(1).map_or(2.0, |text| text.parse().expect("seconds"));
    let time = Duration::from_secs_f64(seconds);
    let ca = ClusterCa::create("bench").expect("a CA");
    let listen = Some("127.0.0.1:0".parse().expect("an address"));
    let server = MessengerConfig::new(credentials(&ca, "osd.0"), listen);
    let client = MessengerConfig::new(credentials(&ca, "client.bench"), None);
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || reactor(serve(server, tell)));
    let address = told.recv().expect("the server starts");
    reactor(async {
        let messenger = Messenger::bind(client).expect("a free port");
        let client = Client { messenger, to: Address::Osd { id: OsdId(0), address } };
        client.step("warm-up", 32, 4096, false, time / 4).await;
        client.step("4 KiB write", 1, 4096, false, time).await;
        client.step("4 KiB write", 32, 4096, false, time).await;
        client.step("4 KiB echo (both ways)", 1, 4096, true, time).await;
        client.step("4 KiB echo (both ways)", 32, 4096, true, time).await;
        client.step("64 KiB write", 16, 64 << 10, false, time).await;
        client.step("4 MiB write", 8, 4 << 20, false, time).await;
        println!("packets lost by the client: {}", client.messenger.stats().packets_lost);
        client.messenger.shutdown().await;
    });
    thread.join().expect("the server ends");
}
