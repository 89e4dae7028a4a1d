//! Transfers whose checksums are compared, on a device whose copies fail or arrive different.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_device::fake::{FakeControl, FakeDevice, FakeOptions, Fault, QueueKind};
use mlx_serving_device::{Device, Storage};
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_metal_layer::{Allocation, MetalLayer, Ticket};
use std::sync::mpsc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

struct Bench {
    control: FakeControl,
    layer: MetalLayer,
    /// Memory that the host does not reach.
    buffer: Allocation,
}

impl Bench {
    fn new() -> Self {
        let device = FakeDevice::new(FakeOptions { unified_memory: false, ..FakeOptions::default() }).unwrap();
        assert!(!device.info().unified_memory);
        let control = device.control();
        let mut config = MetalOptimizations::default();
        config.select("blit_queue").unwrap();
        config.blit_queue.verify_checksums = true;
        let layer = MetalLayer::new(device, &config).unwrap();
        let buffer = layer.allocate.allocate(64, Storage::Private, "test").unwrap();
        Self { control, layer, buffer }
    }

    fn upload(&self, byte: u8) -> Ticket {
        let fill = move |bytes: &mut [u8]| {
            bytes.fill(byte);
            Ok(())
        };
        self.layer.transfer.upload(&self.buffer, Box::new(fill)).unwrap()
    }

    fn download(&self) -> (Ticket, mpsc::Receiver<Vec<u8>>) {
        let (told, bytes) = mpsc::channel();
        let sink = move |bytes: &[u8]| told.send(bytes.to_vec()).map_err(|e| e.to_string());
        (self.layer.transfer.download(&self.buffer, Box::new(sink)).unwrap(), bytes)
    }

    fn failures(&self) -> u64 {
        self.layer.transfer.stats().checksum_failures
    }
}

/// Runs `transfer` with a fault in its first copy, then in the one that is compared with it.
fn with_one_fault(transfer: impl Fn(&Bench)) {
    for nth in [1, 2] {
        for corrupt in [true, false] {
            let bench = Bench::new();
            bench.upload(5).wait(LONG).unwrap();
            if corrupt {
                bench.control.corrupt_copies(QueueKind::Transfer, Fault::nth(nth));
            } else {
                bench.control.fail_copies(QueueKind::Transfer, Fault::nth(nth));
            }
            transfer(&bench);
            assert_eq!(bench.failures(), u64::from(corrupt), "copy {nth}");
        }
    }
}

#[test]
fn an_upload_that_fails_or_arrives_different_is_made_once_more() {
    with_one_fault(|bench| {
        bench.upload(7).wait(LONG).unwrap();
        let (ticket, bytes) = bench.download();
        ticket.wait(LONG).unwrap();
        assert_eq!(bytes.recv_timeout(LONG).unwrap(), [7; 64]);
    });
}

#[test]
fn a_download_that_fails_or_arrives_different_is_made_once_more() {
    with_one_fault(|bench| {
        let (ticket, bytes) = bench.download();
        ticket.wait(LONG).unwrap();
        assert_eq!(bytes.recv_timeout(LONG).unwrap(), [5; 64]);
    });
}

#[test]
fn a_copy_that_fails_twice_fails_its_transfer_and_no_other() {
    let bench = Bench::new();
    bench.control.fail_copies(QueueKind::Transfer, Fault::next(2));
    assert!(bench.upload(1).wait(LONG).is_err());
    bench.upload(2).wait(LONG).unwrap();
    bench.control.fail_copies(QueueKind::Transfer, Fault::next(2));
    let (ticket, bytes) = bench.download();
    assert!(ticket.wait(LONG).is_err() && bytes.recv_timeout(LONG).is_err(), "the sink got nothing");
    let (ticket, bytes) = bench.download();
    ticket.wait(LONG).unwrap();
    assert_eq!(bytes.recv_timeout(LONG).unwrap(), [2; 64]);
}
