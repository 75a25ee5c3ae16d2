//! Which version answered which request.
//!
//! A client numbers its requests in the order it makes them, and the log mostly meets them in that order and forgets the
//! oldest first. So what it knows of a client is a queue sorted by number: a new request is looked for and added at its
//! end, without a search.

use nacre_types::{ClientId, EVersion, RequestId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    /// Those of whom any request is known.
    clients: BTreeMap<ClientId, Client>,
}

#[derive(Clone, Debug, Default)]
struct Client {
    /// Not empty.
    queue: VecDeque<(u64, EVersion)>,
    /// It has its answers to what it asked below this number,
    answered_below: u64,
    /// but for these.
    unanswered: BTreeSet<u64>,
}

impl Requests {
    pub fn get(&self, request: RequestId) -> Option<EVersion> {
        let queue = &self.clients.get(&request.client)?.queue;
        let at = place(queue, request.seq).ok()?;
        Some(queue[at].1)
    }

    /// Whether the client is known to have its answer: it will not ask again, but what it sent before may still arrive.
    pub fn is_answered(&self, request: RequestId) -> bool {
        self.clients.get(&request.client).is_some_and(|client| {
            request.seq < client.answered_below && !client.unanswered.contains(&request.seq)
        })
    }

    /// A request that is known, and is to stay so, tells that those of its client below that number are answered; or, if
    /// any are named as `unanswered`, that of those before it all others are.
    pub fn settle(&mut self, request: RequestId, answered_below: u64, unanswered: &[u64]) {
        let Some(client) = self.clients.get_mut(&request.client) else { return };
        let below = if unanswered.is_empty() { answered_below } else { request.seq };
        let open = |seq: &u64| *seq >= below || *seq >= answered_below && unanswered.contains(seq);
        client.unanswered.retain(open);
        let known = client.answered_below;
        client
            .unanswered
            .extend(unanswered.iter().filter(|&&seq| seq >= known.max(answered_below) && seq < below));
        client.answered_below = known.max(below);
    }

    /// Notes that `version` answered the request, whatever had before.
    pub fn insert(&mut self, request: RequestId, version: EVersion) {
        let queue = &mut self.clients.entry(request.client).or_default().queue;
        match place(queue, request.seq) {
            Ok(at) => queue[at].1 = version,
            Err(at) => queue.insert(at, (request.seq, version)),
        }
    }

    /// Forgets the request if it was `version` that answered it.
    pub fn remove(&mut self, request: RequestId, version: EVersion) {
        let Some(client) = self.clients.get_mut(&request.client) else { return };
        let queue = &mut client.queue;
        if let Ok(at) = place(queue, request.seq)
            && queue[at].1 == version
        {
            queue.remove(at);
            if queue.is_empty() {
                self.clients.remove(&request.client);
            }
        }
    }
}

/// Where the request is, or where it would go.
fn place(queue: &VecDeque<(u64, EVersion)>, seq: u64) -> Result<usize, usize> {
    match (queue.front(), queue.back()) {
        (_, Some(&(last, _))) if last < seq => Err(queue.len()),
        (Some(&(first, _)), _) if first == seq => Ok(0),
        _ => queue.binary_search_by_key(&seq, |&(seq, _)| seq),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::{Epoch, Rng};
    use std::collections::HashMap;

    /// A client that has many requests under way, whose messages are settled in another order than it sent them.
    #[test]
    fn what_counts_as_answered_was_and_all_that_was_in_the_end() {
        let mut rng = Rng::new(2);
        for _ in 0..300 {
            let mut requests = Requests::default();
            let client = ClientId(1);
            requests.insert(RequestId { client, seq: 0 }, EVersion::new(Epoch(1), 1));
            let (mut open, mut answered) = (BTreeSet::new(), BTreeSet::new());
            let mut late: Vec<(u64, u64, Vec<u64>)> = Vec::new();
            for seq in 1..120_u64 {
                open.insert(seq);
                let first = *open.first().expect("just one");
                let named = if rng.chance(1, 2) { open.range(..seq).copied().collect() } else { Vec::new() };
                late.push((seq, first, named));
                while open.len() > 1 && rng.chance(2, 3) {
                    // Not the first for long.
                    let at = if rng.chance(1, 20) { 0 } else { rng.range(1, open.len() as u64) as usize };
                    let done = *open.iter().nth(at).expect("in range");
                    open.remove(&done);
                    answered.insert(done);
                }
                while rng.chance(2, 3) && !late.is_empty() {
                    let (seq, below, named) = late.swap_remove(rng.below(late.len() as u64) as usize);
                    requests.settle(RequestId { client, seq }, below, &named);
                }
                for seq in 1..=seq {
                    let told = requests.is_answered(RequestId { client, seq });
                    assert!(!told || answered.contains(&seq), "{seq} is not answered");
                }
            }
            let end = 120;
            let named: Vec<u64> = open.iter().copied().collect();
            requests.settle(RequestId { client, seq: end }, named[0], &named);
            for seq in 1..end {
                let told = requests.is_answered(RequestId { client, seq });
                assert_eq!(told, answered.contains(&seq), "{seq} of {open:?}");
            }
        }
    }

    #[test]
    fn does_what_a_map_does() {
        let mut rng = Rng::new(1);
        let (mut requests, mut model) = (Requests::default(), HashMap::new());
        for step in 0..20_000 {
            // Mostly forward, as clients number theirs.
            let seq = if rng.chance(3, 4) { step / 8 } else { rng.below(step / 8 + 1) };
            let request = RequestId { client: ClientId(rng.below(3)), seq };
            let version = EVersion::new(Epoch(1), rng.below(4));
            if rng.chance(1, 2) {
                requests.insert(request, version);
                model.insert(request, version);
            } else {
                requests.remove(request, version);
                if model.get(&request) == Some(&version) {
                    model.remove(&request);
                }
            }
            let other = RequestId { client: ClientId(rng.below(4)), seq: rng.below(step / 8 + 2) };
            for asked in [request, other] {
                assert_eq!(requests.get(asked), model.get(&asked).copied());
            }
        }
        for (request, version) in model {
            requests.remove(request, version);
        }
        assert!(requests.clients.is_empty());
    }
}
