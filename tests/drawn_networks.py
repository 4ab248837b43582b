"""Networks that have learnt nothing: one that finds dark discs, and TIAToolbox's at random."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import nn

from ccrl_wsi.nuclei.hovernet import REACHES, HoVerNetSegmenter, build_hovernet
from ccrl_wsi.nuclei.hovernet_maps import ideal_maps

TYPE_NAMES = ("Background", "Round", "Long")


def random_hovernet(name, size):
    """A HoVer-Net with random weights, its normalisations fitted so that no signal dies out."""
    torch.manual_seed(0)
    network, _ = build_hovernet(name)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.inference_mode():
        network.train()(torch.rand(1, 3, *size) * 255)
    return network.eval()


class InkNetwork(nn.Module):
    """Gives what a perfect HoVer-Net would of nuclei darker than 128; blue ones are type 2."""

    def __init__(self, mode="fast"):
        super().__init__()
        self.mode = mode
        self.lost = REACHES[mode].lost

    def forward(self, images):
        outputs = [self.look(image.permute(1, 2, 0).numpy()) for image in images]
        return {key: torch.stack([o[key] for o in outputs]) for key in outputs[0]}

    def look(self, image):
        dark = (image[..., 0] < 128).astype(np.uint8)
        maps = ideal_maps(cv2.connectedComponents(dark, connectivity=4)[1])
        types = np.where(dark, np.where(image[..., 2] > 128, 2, 1), 0)
        inner = np.s_[:, self.lost : -self.lost, self.lost : -self.lost]
        logit = 20 * maps.probability - 10
        return {
            "np": torch.from_numpy(np.stack([-logit, logit]))[inner],
            "hv": torch.from_numpy(maps.hv.transpose(2, 0, 1))[inner],
            "tp": torch.from_numpy(np.eye(3, dtype=np.float32)[types].transpose(2, 0, 1))[inner],
        }


def ink_segmenter(mode="fast", window_px=256):
    """A HoVer-Net segmenter around :class:`InkNetwork`."""
    return HoVerNetSegmenter(
        name="ink",
        type_names=TYPE_NAMES,
        network=InkNetwork(mode),
        mode=mode,
        device="cpu",
        window_px=window_px,
        batch_size=3,
        precision="float32",
    )


class DarkBlobs(nn.Module):
    """What a user's ModelABC may look like: labels and TIAToolbox's dictionary of nuclei."""

    class_dict = {0: "Background", 1: "Small", 2: "Large"}
    lost = 8

    def __init__(self):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(128.0))

    @staticmethod
    def preproc(image):
        return image

    @staticmethod
    def infer_batch(model, batch_data, *, device):
        dark = batch_data.to(device).float().mean(dim=-1, keepdim=True) < model.threshold
        m = model.lost
        return (dark[:, m:-m, m:-m].float().cpu().numpy(),)

    def postproc(self, raw_maps):
        labels = cv2.connectedComponents((raw_maps[0][..., 0] > 0.5).astype(np.uint8))[1]
        info = {number: self.describe(labels == number) for number in range(1, labels.max() + 1)}
        return ({"predictions": labels, "info_dict": info, "seg_type": "instance"},)

    @staticmethod
    def describe(inside):
        contour = cv2.findContours(
            inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )[0][0]
        return {"contours": contour[:, 0], "type": 1 + int(inside.sum() > 300), "prob": 0.75}
