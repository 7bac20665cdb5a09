"""IDQ on a recogniser in an ONNX file, such as insightface's `w600k_r50.onnx`.

    python network.py --config_file config/config_onnx_idq.py \
        --set train_images=PATH backbone_weights=PATH

What the file does not say is found out and logged: options of the backbone are `embedding`,
`features` and `preprocessing`, which export/colour_order.py tries. The best margin is the cosine at
which the recogniser lets one impostor in a thousand pass; verification_risk_fnmr.py prints it.
"""

from utils.config import Augment, Method, Schedule, TrainConfig

config = TrainConfig(
    name="onnx_idq",
    backbone=Method("onnx"),
    backbone_weights="weights/w600k_r50.onnx",
    head=Method("fc2", output="probability", hidden=64, log_norm=1.0, dropout=0.5),
    loss=Method("idq", scale=16.0, margin=0.3),
    train_images="datasets/faces",
    classes_per_batch=20,
    images_per_class=8,
    schedule=Schedule(epochs=4, steps_per_epoch=300, lr=1e-2, drop_at=(2, 3), weight_decay=5e-3),
    augment=Augment(blur=0.0, occlusion=0.0, rare=0.0, degrade=0.3),
    log_every=50,
)
