"""A U-Net of segmentation-models-pytorch with a ResNet-18 inside: inspected, measured, one skip ablated and removed.

pip install "unetscope[smp]"
python examples/smp_unet.py [FOLDER]
"""

from __future__ import annotations

import sys

import segmentation_models_pytorch as smp
import torch

import unetscope as us


def main(folder: str, epochs: int = 2) -> us.Flow:
    """Train and measure; returns what was measured."""
    torch.manual_seed(0)
    nuclei = us.synthetic_nuclei(24, image_size=64)
    images, masks = torch.from_numpy(nuclei.images) / 255, torch.from_numpy(nuclei.masks)[:, None].float()
    model = smp.Unet("resnet18", encoder_weights=None)
    structure = us.inspect(model, images[:1])
    print(structure)

    optimizer, loss = torch.optim.Adam(model.parameters(), 1e-3), smp.losses.DiceLoss("binary")
    recorder = us.Recorder(us.Scope(model, nuclei, labels=[us.KMeansLabels(4)], epochs=[0, epochs]), folder)
    recorder.measure(0)
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(images)).split(8):
            optimizer.zero_grad()
            loss(model(images[rows]), masks[rows]).backward()
            optimizer.step()
        recorder.measure(epoch)

    model.eval()
    with torch.no_grad():
        whole = loss(model(images), masks).item()
        for skip in structure.skips:
            with us.networks.ablated(model, structure, skip.name):
                print(f"{skip.name} ablated: loss {whole:.3f} to {loss(model(images), masks).item():.3f}")
    smaller = us.without_skips(model, structure, "skip1")
    print(f"without skip1: {sum(p.numel() for p in smaller.parameters())} parameters")
    return recorder.flow


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/smp_unet")
