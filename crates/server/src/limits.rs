use std::time::Duration;

/// Bounds of connections, of what they send, and of what waits for them.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Connections at once. At the bound the one that is idle longest makes room.
    pub connections: usize,
    /// Time for a request's head, from the connection or its first byte.
    pub header: Duration,
    /// Time for a body.
    pub body: Duration,
    /// Time between two pieces of a body.
    pub pause: Duration,
    /// Time between two requests of a connection.
    pub idle: Duration,
    /// Time in which a client has to take 64 KiB of its answer, or what is left of it.
    pub write: Duration,
    /// Bytes of all bodies that are being read or worked on.
    pub bodies: usize,
    /// Bytes of one whole answer.
    pub answer: usize,
    /// Bytes of all whole answers that are not yet with their clients.
    pub unread: usize,
    /// Responses that are kept to be continued; 0 keeps none.
    pub stored_responses: usize,
    /// Bytes of all of them, with their conversations.
    pub stored_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            header: Duration::from_secs(15),
            body: Duration::from_secs(120),
            pause: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(60),
            bodies: 64 << 20,
            answer: 16 << 20,
            unread: 256 << 20,
            stored_responses: 1024,
            stored_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// Time between two looks at a connection.
    pub(crate) fn tick(&self) -> Duration {
        let shortest = self.header.min(self.pause).min(self.idle).min(self.write);
        (shortest / 4).clamp(Duration::from_millis(50), Duration::from_secs(5))
    }
}
