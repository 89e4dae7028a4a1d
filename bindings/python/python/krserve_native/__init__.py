"""The Metal layer's three optimizations by themselves, on any device.

A memory pool of heaps, copies beside other work, and a ring of command buffers. Each has a configuration whose attributes are
checked when they are set, and statistics.
"""

from ._native import (
    BlitCoordinator,
    BlitCoordinatorConfig,
    BlitCoordinatorStats,
    BlitDownload,
    BlitUpload,
    CommandBuffer,
    CommandBufferRing,
    CommandBufferRingConfig,
    CommandBufferRingStats,
    DeviceBuffer,
    MetalHeap,
    MetalMemoryPool,
    MetalMemoryPoolConfig,
    MetalMemoryPoolStats,
    __version__,
)

__all__ = [
    "BlitCoordinator",
    "BlitCoordinatorConfig",
    "BlitCoordinatorStats",
    "BlitDownload",
    "BlitUpload",
    "CommandBuffer",
    "CommandBufferRing",
    "CommandBufferRingConfig",
    "CommandBufferRingStats",
    "DeviceBuffer",
    "MetalHeap",
    "MetalMemoryPool",
    "MetalMemoryPoolConfig",
    "MetalMemoryPoolStats",
    "__version__",
]
