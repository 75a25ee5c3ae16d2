//! Which version answered which request.
//!
//! A client numbers its requests in the order it makes them, and the log mostly meets them in that order and forgets the
//! oldest first. So what it knows of a client is a queue sorted by number: a new request is looked for and added at its
//! end, without a search.

use nacre_types::{ClientId, EVersion, RequestId};
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    /// Those of whom any request is known.
    clients: BTreeMap<ClientId, Client>,
}

#[derive(Clone, Debug, Default)]
struct Client {
    /// Not empty.
    queue: VecDeque<(u64, EVersion)>,
    /// It has its answers to what it asked below this number.
    answered_below: u64,
}

impl Requests {
    pub fn get(&self, request: RequestId) -> Option<EVersion> {
        let queue = &self.clients.get(&request.client)?.queue;
        let at = place(queue, request.seq).ok()?;
        Some(queue[at].1)
    }

    /// Whether the client is known to have its answer: it will not ask again, but what it sent before may still arrive.
    pub fn is_answered(&self, request: RequestId) -> bool {
        self.clients.get(&request.client).is_some_and(|client| request.seq < client.answered_below)
    }

    /// A request of the client's that is known, and is to stay so, tells that those below that number are answered.
    pub fn settle(&mut self, id: ClientId, answered_below: u64) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.answered_below = client.answered_below.max(answered_below);
        }
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
