"""keras.applications with a file's weights, on images in an .npy file; a program of its own.

    python keras_answers.py WEIGHTS MODEL WIDTH CLASSES IMAGES LOGITS

Weights only are loaded: whatever else a file holds is not looked at.
"""

import sys

import numpy as np


def main() -> None:
    path, name, width, classes, images, logits = sys.argv[1:]
    import keras

    make, minimalistic = {
        "mobilenet_v1": (keras.applications.MobileNet, None),
        "mobilenet_v2": (keras.applications.MobileNetV2, None),
        "mobilenet_v3_large": (keras.applications.MobileNetV3Large, False),
        "mobilenet_v3_small": (keras.applications.MobileNetV3Small, False),
        "mobilenet_v3_large_minimalistic": (keras.applications.MobileNetV3Large, True),
        "mobilenet_v3_small_minimalistic": (keras.applications.MobileNetV3Small, True),
    }[name]
    x = np.load(images).transpose(0, 2, 3, 1)
    options = {"alpha": float(width), "classes": int(classes), "weights": None}
    if minimalistic is not None:
        # images are normalised already
        options |= {"minimalistic": minimalistic, "include_preprocessing": False}
    model = make(input_shape=x.shape[1:], classifier_activation=None, **options)
    model.load_weights(path)
    answers = keras.ops.convert_to_numpy(model(x, training=False))
    np.save(logits, np.asarray(answers, np.float32))


if __name__ == "__main__":
    main()
