"""IDQ on rendered faces: nothing to download, the whole way from training to the risk table.

    python network.py --config_file config/config_demo.py        under a minute on two idle cores

The uncertainty should rise with blur, lost resolution, noise and occlusion, which no label names:
the loss sees pairs of images alone.
"""

from pathlib import Path

from utils.config import Augment, Method, Schedule, TrainConfig, Verification

config = TrainConfig(
    name="demo",
    # as in demo/backbone.py, which made the weights
    backbone=Method("iresnet", layers=(1, 1, 1, 1), widths=(8, 16, 32, 64), embedding_size=64),
    backbone_weights=str(Path(__file__).resolve().parents[1] / "demo" / "backbone.pth"),
    head=Method("fc2", output="probability", hidden=64),
    loss=Method("idq", scale=16.0, margin=0.45),  # this backbone's threshold at an FMR of 1/100
    train_images="synthetic:identities=200,images=20,seed=1",
    classes_per_batch=10,
    images_per_class=6,
    schedule=Schedule(epochs=2, steps_per_epoch=100, lr=2e-2, drop_at=(1.0, 1.5)),
    # rendered faces come with degradations of their own
    augment=Augment(flip=0.5, blur=0.0, occlusion=0.0, rare=0.0),
    verification=Verification(targets=("synthetic:pairs=2000,seed=9",)),
    log_every=20,
    workers=2,
)
