"""The peer of `pretrain.py`: SimCLR by lightly, with the same network, on the same slices.

    python benchmarks/lightly_simclr.py STORE --minutes 2 --out peer.json [--init imagenet]

Needs the extra `[peers]`: lightly, timm, torch, torchvision. It trains as in lightly's documentation: its transform,
projection head and loss, and a PyTorch data loader with worker processes. Two settings are sensible here: `default` is
lightly's unchanged transform, `grey` omits colour changes and crops less. A cosine schedule spans the minutes, like
ours. From ImageNet's weights, the same file as ours, the peak rate is ours too, and images are scaled as in the
network's training.

Writes JSON with views per second, and with --weights the trained weights, from which `quality.py` computes features.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import numpy as np

NETWORK = "tf_efficientnet_lite0"
# Image scaling: lightly's, and that of the network's own training.
MEAN_STD = {
    "random": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "imagenet": ((127 / 255,) * 3, (128 / 255,) * 3),
}
RATE = {"random": 1e-3, "imagenet": 3e-4}
REPORT_SECONDS = 5.0


def transform(setting: str, size: int, init: str):
    """lightly's two views of a slice."""
    from lightly.transforms import SimCLRTransform

    mean, std = MEAN_STD[init]
    normalize = {"mean": list(mean), "std": list(std)}
    if setting == "default":
        return SimCLRTransform(input_size=size, normalize=normalize)
    return SimCLRTransform(
        input_size=size,
        normalize=normalize,
        min_scale=0.35,
        cj_sat=0.0,
        cj_hue=0.0,
        random_gray_scale=0.0,
        rr_prob=0.5,
        rr_degrees=25,
    )


def slices(store_folder: Path, setting: str, size: int, init: str):
    """A map-style data set: (first view, second view) of each slice of the store."""
    from PIL import Image
    from torch.utils.data import Dataset

    from mri_transfer.datasets.store.store import SliceStore

    class Slices(Dataset):
        def __init__(self):
            self.store, self.views = SliceStore.open(store_folder), transform(setting, size, init)

        def __len__(self):
            return len(self.store)

        def __getitem__(self, index):
            grey = Image.fromarray(self.store.images([index])[0])
            return tuple(self.views(grey.convert("RGB")))

    return Slices()


def network(init: str = "random"):
    """timm's network, (n, 3, size, size) to (n, 1280), with random weights or the ImageNet weights of our start."""
    import timm

    encoder = timm.create_model(NETWORK, pretrained=False, num_classes=0)
    if init == "imagenet":
        import torch

        from mri_transfer.checkpoints.imagenet import packaged_weights
        from mri_transfer.checkpoints.torch_pickle import read_state_dict

        # Layer names differ, but both follow the network's order; batch counters are not weights.
        published = [
            values
            for name, values in read_state_dict(packaged_weights()).items()
            if not name.startswith("_fc.") and not name.endswith("num_batches_tracked")
        ]
        names = [name for name in encoder.state_dict() if not name.endswith("num_batches_tracked")]
        state = {name: torch.tensor(values) for name, values in zip(names, published, strict=True)}
        encoder.load_state_dict(state, strict=False)
    return encoder


def train(
    store: Path,
    *,
    minutes: float,
    pairs: int,
    size: int,
    threads: int,
    workers: int,
    setting: str,
    channels_last: bool,
    seed: int,
    init: str,
    weights: Path | None,
) -> dict:
    """Train for the given time, everything included; returns, among others, median views per second over reports."""
    began = time.monotonic()
    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from torch.utils.data import DataLoader

    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    data = slices(store, setting, size, init)
    loader = DataLoader(
        data,
        batch_size=pairs,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(seed),
    )
    encoder = network(init)
    head = SimCLRProjectionHead(encoder.num_features, 512, 128)
    if channels_last:
        encoder = encoder.to(memory_format=torch.channels_last)
    loss_of = NTXentLoss(temperature=0.1)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE[init], weight_decay=1e-4)
    encoder.train()
    budget, step, rates, losses = minutes * 60, 0, [], []
    reported_at, report_from = None, 0
    while time.monotonic() - began < budget:
        for views in loader:
            progress = (time.monotonic() - began) / budget
            if progress >= 1:
                break
            share = (
                progress / 0.05
                if progress < 0.05
                else 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95))
            )
            for group in optimizer.param_groups:
                group["lr"] = RATE[init] * share
            a, b = (
                view.contiguous(memory_format=torch.channels_last) if channels_last else view
                for view in views
            )
            loss = loss_of(head(encoder(a)), head(encoder(b)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
            now = time.monotonic()
            if reported_at is None:  # the first step warms up
                reported_at, report_from = now, step
            elif now - reported_at >= REPORT_SECONDS:
                rates.append(2 * pairs * (step - report_from) / (now - reported_at))
                reported_at, report_from = now, step
    if weights:
        torch.save(encoder.state_dict(), weights)
    return {
        "views_per_second": statistics.median(rates) if rates else None,
        "steps": step,
        "seconds": time.monotonic() - began,
        "first_loss": losses[0],
        "last_loss": float(np.mean(losses[-20:])),
    }


def features(weights: Path | None, images: np.ndarray, init: str = "random", threads: int = 2) -> np.ndarray:
    """Features (n, 1280) of grey images, uint8 (n, size, size), from weights trained from that start, or from the
    start."""
    import torch

    torch.set_num_threads(threads)
    encoder = network(init)
    if weights:
        encoder.load_state_dict(torch.load(weights, weights_only=True))
    encoder.eval()
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in MEAN_STD[init])
    batches = []
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            grey = torch.from_numpy(images[start : start + 64]).float()[:, None] / 255
            batches.append(encoder((grey.expand(-1, 3, -1, -1) - mean) / std).numpy())
    return np.concatenate(batches)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--setting", choices=("default", "grey"), default="default")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", choices=tuple(RATE), default="random")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = vars(parser.parse_args())
    out = arguments.pop("out")
    text = json.dumps(train(**arguments))
    if out:
        out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
