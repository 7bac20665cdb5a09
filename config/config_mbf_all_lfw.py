"""Five heads, three seeds each, on one forward pass of a MobileFaceNet: a CPU will do.

    python network.py --config_file config/config_mbf_all_lfw.py \
        --set train_images=PATH backbone_weights=PATH
    python evaluation/compare.py --methods runs/mbf_all_lfw --target faces:FOLDER --out compared

Heads, losses and learning rates are those of the single configs beside this one; all heads see the
same images.
"""

from utils.config import Augment, Branch, Method, Schedule, TrainConfig


def fc2(output: str, log_norm: float, **options: int) -> Method:
    """Return the narrow head that these few faces need."""
    return Method("fc2", output=output, hidden=64, **options, log_norm=log_norm, dropout=0.5)


def rate(lr: float, weight_decay: float = 5e-3) -> Schedule:
    """Return the schedule with another learning rate."""
    return Schedule(epochs=4, steps_per_epoch=300, lr=lr, drop_at=(2, 3), weight_decay=weight_decay)


GRID = Method("gap_linear", output="probability", log_norm=1.0, grid=3)
HEADS = {
    "idq_grid": (GRID, Method("idq", scale=16.0, margin=0.35), rate(0.3, 5e-4)),
    "idq": (fc2("probability", 1.0), Method("idq", scale=16.0, margin=0.35), rate(1e-2)),
    "pcnet": (fc2("probability", 0.5), Method("pcnet"), rate(1e-2)),
    "fast_mls": (fc2("variance", 0.6), Method("fast_mls"), rate(3e-3)),
    "mls": (fc2("variance", 0.6, dim=128), Method("mls"), rate(1e-1)),
}

config = TrainConfig(
    name="mbf_all_lfw",
    backbone=Method("mobilefacenet"),
    backbone_weights="weights/mbf_y1.pth",
    branches=tuple(
        Branch(f"{name}-{seed}", head=head, loss=loss, seed=seed, schedule=schedule)
        for name, (head, loss, schedule) in HEADS.items()
        for seed in (0, 1, 2)
    ),
    train_images="datasets/lfw_train",
    classes_per_batch=20,
    images_per_class=8,
    schedule=rate(1e-2),
    augment=Augment(blur=0.0, occlusion=0.0, rare=0.0, degrade=0.3),
    log_every=50,
)
