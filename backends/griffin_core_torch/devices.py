"""What this installation of PyTorch can run on; ``griffin info`` shows it."""

from __future__ import annotations

import torch


def devices() -> list[str]:
    """The processor with its threads, then every accelerator by name."""
    found = [f"cpu ({torch.get_num_threads()} threads)"]
    return found + [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
