"""The three classes of krserve_native: settings, counters, what is refused."""

from __future__ import annotations

import array
import gc
import subprocess
import sys
import threading
from typing import Any

import pytest

import krserve_native as kn


def small_pool(**attributes: Any) -> kn.MetalMemoryPool:
    config = kn.MetalMemoryPoolConfig()
    config.device, config.heap_size_mb, config.num_heaps = "cpu", 64, 2
    for name, value in attributes.items():
        setattr(config, name, value)
    return kn.MetalMemoryPool(config)


def coordinator(**attributes: Any) -> kn.BlitCoordinator:
    config = kn.BlitCoordinatorConfig()
    config.device, config.staging_buffer_size_mb = "cpu", 1
    for name, value in attributes.items():
        setattr(config, name, value)
    return kn.BlitCoordinator(config)


def ring(**attributes: Any) -> kn.CommandBufferRing:
    config = kn.CommandBufferRingConfig()
    config.device = "cpu"
    for name, value in attributes.items():
        setattr(config, name, value)
    return kn.CommandBufferRing(config)


DEFAULTS: list[tuple[type[Any], str, Any]] = [
    (kn.MetalMemoryPoolConfig, "heap_size_mb", 256),
    (kn.MetalMemoryPoolConfig, "num_heaps", 4),
    (kn.MetalMemoryPoolConfig, "warmup_sizes", []),
    (kn.MetalMemoryPoolConfig, "track_statistics", True),
    (kn.MetalMemoryPoolConfig, "log_exhaustion", True),
    (kn.MetalMemoryPoolConfig, "device", "auto"),
    (kn.BlitCoordinatorConfig, "max_pending_ops", 10),
    (kn.BlitCoordinatorConfig, "timeout_ms", 5000),
    (kn.BlitCoordinatorConfig, "staging_buffer_size_mb", 64),
    (kn.BlitCoordinatorConfig, "use_shared_events", True),
    (kn.BlitCoordinatorConfig, "verify_checksums", False),
    (kn.BlitCoordinatorConfig, "track_metrics", True),
    (kn.BlitCoordinatorConfig, "device", "auto"),
    (kn.CommandBufferRingConfig, "ring_size", 3),
    (kn.CommandBufferRingConfig, "max_wait_ms", 1000),
    (kn.CommandBufferRingConfig, "track_statistics", True),
    (kn.CommandBufferRingConfig, "log_wait_events", False),
    (kn.CommandBufferRingConfig, "device", "auto"),
]
RANGES = {
    "heap_size_mb": (64, 2048),
    "num_heaps": (2, 16),
    "max_pending_ops": (1, 100),
    "timeout_ms": (100, 30_000),
    "staging_buffer_size_mb": (1, 1024),
    "ring_size": (2, 8),
    "max_wait_ms": (100, 10_000),
}


def names(defaults: list[tuple[type[Any], str, Any]]) -> list[str]:
    return [f"{kind.__name__}.{name}" for kind, name, _ in defaults]


@pytest.mark.parametrize(("kind", "name", "default"), DEFAULTS, ids=names(DEFAULTS))
def test_an_attribute_has_its_default_and_refuses_other_types_by_name(kind: type[Any], name: str, default: Any) -> None:
    config = kind()
    assert getattr(config, name) == default
    for wrong in [None, 1.5, object(), {}] + ([1, "x"] if isinstance(default, bool) else [True]):
        if name == "warmup_sizes" and wrong == {}:
            continue
        with pytest.raises(TypeError, match=f"^{name}"):
            setattr(config, name, wrong)
    assert getattr(config, name) == default, "what was refused changed something"


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, name, _ in DEFAULTS if name in RANGES], ids=lambda v: getattr(v, "__name__", v)
)
def test_a_number_has_a_range_that_its_refusal_names(kind: type[Any], name: str) -> None:
    low, high = RANGES[name]
    config = kind()
    for value in (low, high):
        setattr(config, name, value)
        assert getattr(config, name) == value
    for value in (low - 1, high + 1, -1, 10**30):
        with pytest.raises(ValueError, match=f"^{name}.*{low} to {high}, not {value}$"):
            setattr(config, name, value)
    assert getattr(config, name) == high


def test_what_is_there_shows_itself() -> None:
    pool, blit = kn.MetalMemoryPoolConfig(), kn.BlitCoordinatorConfig()
    assert repr(pool).startswith("MetalMemoryPoolConfig(warmup_sizes=[], heap_size_mb=256, ")
    assert repr(pool).endswith(", log_exhaustion=True, device='auto')")
    blit.device = "cpu"
    coordinator = kn.BlitCoordinator(blit)
    upload = coordinator.upload_async(b"abc")
    buffer = coordinator.wait_for_completion(upload)
    download = coordinator.download_async(buffer=buffer)
    coordinator.wait_for_all()
    assert (repr(upload), repr(download)) == ("BlitUpload(3 bytes, completed)", "BlitDownload(3 bytes, completed)")


def test_every_method_has_a_doc() -> None:
    for kind in [getattr(kn, name) for name in kn.__all__ if name[0] != "_"]:
        methods = [getattr(kind, name) for name in vars(kind) if name[0] != "_" and callable(getattr(kind, name))]
        assert kind.__doc__ and "[" not in kind.__doc__
        assert all(method.__doc__ for method in methods), methods


def test_there_are_no_other_attributes_and_devices() -> None:
    config = kn.MetalMemoryPoolConfig()
    with pytest.raises(AttributeError):
        config.heap_size = 3  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="^device.*'abacus'"):
        config.device = "abacus"
    with pytest.raises(TypeError):
        kn.MetalMemoryPool(None)  # type: ignore[arg-type]


def test_warm_up_sizes_are_checked_when_they_are_set_and_when_the_list_has_changed() -> None:
    config = kn.MetalMemoryPoolConfig()
    config.device, config.heap_size_mb, config.num_heaps = "cpu", 64, 2
    with pytest.raises(ValueError, match=r"^warmup_sizes\[1\] must be 1 to 1024; it is 0$"):
        config.warmup_sizes = [1, 0]
    with pytest.raises(TypeError, match=r"^warmup_sizes\[1\]"):
        config.warmup_sizes = [1, "2"]  # type: ignore[list-item]
    with pytest.raises(TypeError, match="^warmup_sizes"):
        config.warmup_sizes = "12"  # type: ignore[assignment]
    config.warmup_sizes = [1, 2]
    config.warmup_sizes.append(1025)
    assert config.warmup_sizes == [1, 2, 1025]
    with pytest.raises(ValueError, match="^warmup_sizes"):
        kn.MetalMemoryPool(config)
    config.warmup_sizes.pop()
    kn.MetalMemoryPool(config).warmup()


def test_heaps_are_counted_without_the_temporary_ones() -> None:
    pool = small_pool()
    heaps = [pool.acquire_heap() for _ in range(4)]
    assert [heap.is_temporary for heap in heaps] == [False, False, True, True]
    assert heaps[0].size == 64 << 20
    stats = pool.get_statistics()
    assert (stats.total_acquired, stats.total_released, stats.available_count, stats.pool_size) == (2, 0, 0, 2)
    assert (stats.exhaustion_events, stats.fallback_events) == (2, 2)
    for heap in heaps:
        pool.release_heap(heap)
    stats = pool.get_statistics()
    assert (stats.total_acquired, stats.total_released, stats.available_count) == (2, 2, 2)
    assert repr(stats) == "MetalMemoryPoolStats(acquired=2, released=2, available=2)"
    pool.reset_statistics()
    stats = pool.get_statistics()
    assert (stats.total_acquired, stats.total_released, stats.exhaustion_events, stats.fallback_events) == (0, 0, 0, 0)
    assert (stats.pool_size, stats.available_count) == (2, 2)


def test_nothing_is_counted_without_statistics() -> None:
    pool = small_pool(track_statistics=False)
    pool.release_heap(pool.acquire_heap())
    assert pool.get_statistics().total_acquired == 0


def test_a_heap_is_released_once_and_to_its_own_pool() -> None:
    pool, other = small_pool(), small_pool()
    heap = pool.acquire_heap()
    with pytest.raises(ValueError, match="another pool"):
        other.release_heap(heap)
    assert heap.size > 0, "it is still acquired"
    pool.release_heap(heap)
    with pytest.raises(ValueError, match="released before"):
        pool.release_heap(heap)
    with pytest.raises(ValueError, match="was released"):
        _ = heap.size
    assert "released" in repr(heap)
    with pytest.raises(TypeError):
        pool.release_heap(object())  # type: ignore[arg-type]


def test_a_dropped_heap_goes_back_and_stays_a_leak_in_the_counters() -> None:
    pool = small_pool()
    pool.acquire_heap()
    gc.collect()
    stats = pool.get_statistics()
    assert (stats.total_acquired, stats.total_released, stats.available_count) == (1, 0, 2)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)


SMALL = """
from krserve_native import *
config = MetalMemoryPoolConfig()
config.device, config.heap_size_mb, config.num_heaps = "cpu", 64, 2
"""


def test_a_pool_that_ends_with_a_leak_says_so_on_standard_error() -> None:
    held = run(SMALL + "pool = MetalMemoryPool(config); heap = pool.acquire_heap(); del pool")
    assert "leak" in held.stderr, held.stderr
    tidy = run(SMALL + "pool = MetalMemoryPool(config); pool.release_heap(pool.acquire_heap()); del pool")
    assert tidy.stderr == ""


def test_exhaustion_is_logged_unless_that_is_off() -> None:
    code = "pool = MetalMemoryPool(config)\nfor h in [pool.acquire_heap() for _ in range(3)]: pool.release_heap(h)"
    assert "exhausted" in run(SMALL + code).stderr
    assert run(SMALL + "config.log_exhaustion = False\n" + code).stderr == ""


def test_threads_share_a_pool() -> None:
    pool = small_pool(num_heaps=4)

    def work() -> None:
        for _ in range(50):
            pool.release_heap(pool.acquire_heap())

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    stats = pool.get_statistics()
    assert stats.total_acquired == stats.total_released
    assert stats.total_acquired + stats.fallback_events == 400
    assert stats.available_count == 4


@pytest.mark.parametrize("checksums", [False, True])
def test_bytes_come_back_as_they_went(checksums: bool) -> None:
    blit = coordinator(verify_checksums=checksums)
    floats: Any = array.array("f", [1.0, 2.0])
    sources: list[Any] = [b"abc", bytes(range(256)) * 9000, bytearray(b"x" * 7), memoryview(b"yyy"), floats]
    for data in sources:
        upload = blit.upload_async(data)
        buffer = blit.wait_for_completion(upload)
        assert buffer is upload.buffer
        assert blit.is_completed(upload)
        assert buffer.size == memoryview(data).nbytes
        download = blit.download_async(buffer)
        assert blit.wait_for_completion(download, timeout_ms=60_000) == bytes(memoryview(data).cast("B"))
        assert blit.wait_for_completion(download) == bytes(memoryview(data).cast("B")), "again"
    stats = blit.get_statistics()
    assert (stats.total_uploads, stats.total_downloads, stats.pending_operations) == (5, 5, 0)
    assert stats.bytes_uploaded == stats.bytes_downloaded == 3 + 256 * 9000 + 7 + 3 + 8
    assert repr(stats) == "BlitCoordinatorStats(uploads=5, downloads=5, pending=0)"
    blit.reset_statistics()
    assert blit.get_statistics().total_uploads == 0


def test_a_download_comes_after_the_upload_that_was_not_waited_for() -> None:
    blit = coordinator()
    uploads = [blit.upload_async(bytes([n]) * 1000) for n in range(40)]
    downloads = [blit.download_async(upload.buffer) for upload in uploads]
    blit.wait_for_all()
    assert all(blit.is_completed(upload) for upload in uploads)
    assert [blit.wait_for_completion(download)[:1] for download in downloads] == [bytes([n]) for n in range(40)]


def test_what_is_no_copy_is_refused() -> None:
    blit, other = coordinator(), coordinator()
    with pytest.raises(ValueError, match="empty"):
        blit.upload_async(b"")
    for wrong in ["text", 3, None, [1, 2]]:
        with pytest.raises(TypeError):
            blit.upload_async(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            blit.download_async(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            blit.wait_for_completion(wrong)  # type: ignore[call-overload]
    upload = blit.upload_async(b"abc")
    with pytest.raises(ValueError, match="another coordinator"):
        other.wait_for_completion(upload)
    with pytest.raises(ValueError, match="another coordinator"):
        other.is_completed(upload)
    with pytest.raises(ValueError, match="another coordinator"):
        other.download_async(upload.buffer)
    for timeout in [-1, 1.5, "1"]:
        with pytest.raises((TypeError, ValueError), match="timeout_ms"):
            blit.wait_for_completion(upload, timeout_ms=timeout)  # type: ignore[call-overload]


def test_a_buffer_outlives_its_coordinator() -> None:
    blit = coordinator()
    upload = blit.upload_async(b"abc")
    del blit
    gc.collect()
    assert upload.buffer.size == 3


def test_slots_go_round() -> None:
    buffers = ring()
    held = [buffers.acquire_buffer() for _ in range(3)]
    assert [buffer.index for buffer in held] == [0, 1, 2]
    stats = buffers.get_statistics()
    assert (stats.ring_size, stats.available_count, stats.total_acquired, stats.total_released) == (3, 0, 3, 0)
    with pytest.raises(RuntimeError, match="release one"):
        buffers.acquire_buffer()
    for buffer in held:
        buffers.release_buffer(buffer)
    buffers.wait_all()
    stats = buffers.get_statistics()
    assert (stats.available_count, stats.in_flight_count, stats.total_released, stats.rotations) == (3, 0, 3, 1)
    assert repr(stats) == "CommandBufferRingStats(acquired=3, released=3, available=3)"
    buffers.reset_statistics()
    assert buffers.get_statistics().total_acquired == 0


def test_a_command_buffer_is_released_once_and_to_its_own_ring() -> None:
    buffers, other = ring(), ring()
    buffer = buffers.acquire_buffer()
    with pytest.raises(ValueError, match="another ring"):
        other.release_buffer(buffer)
    buffers.release_buffer(buffer)
    with pytest.raises(ValueError, match="released before"):
        buffers.release_buffer(buffer)
    assert "released" in repr(buffer)
    buffers.acquire_buffer()
    gc.collect()
    buffers.wait_all()
    assert buffers.get_statistics().available_count == 3, "a dropped one is free again"


def test_many_more_are_acquired_than_the_ring_has() -> None:
    buffers = ring(ring_size=2)
    for _ in range(100):
        buffers.release_buffer(buffers.acquire_buffer())
    buffers.wait_all()
    stats = buffers.get_statistics()
    assert (stats.total_acquired, stats.total_released, stats.available_count) == (100, 100, 2)


def test_after_a_fork_the_child_is_refused_and_ends() -> None:
    code = SMALL + """
import os
blit_config = BlitCoordinatorConfig(); blit_config.device = "cpu"
ring_config = CommandBufferRingConfig(); ring_config.device = "cpu"
pool, blit, ring = MetalMemoryPool(config), BlitCoordinator(blit_config), CommandBufferRing(ring_config)
heap, upload, buffer = pool.acquire_heap(), blit.upload_async(b"abc"), ring.acquire_buffer()
child = os.fork()
if child == 0:
    calls = [pool.acquire_heap, pool.get_statistics, lambda: pool.release_heap(heap), lambda: heap.size, blit.wait_for_all,
             lambda: blit.wait_for_completion(upload), lambda: upload.buffer.size, ring.acquire_buffer, ring.wait_all,
             lambda: ring.release_buffer(buffer)]
    for call in calls:
        try:
            call()
        except RuntimeError as error:
            assert "fork" in str(error), error
        else:
            os._exit(1)
    print("refused", flush=True)
else:
    assert os.waitpid(child, 0)[1] == 0
    pool.release_heap(heap); ring.release_buffer(buffer); blit.wait_for_all(); ring.wait_all()
    print("parent works")
"""
    assert sorted(run(code).stdout.split("\n")) == ["", "parent works", "refused"]
