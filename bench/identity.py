"""Face embeddings, for `bench.fusion`: a program of its own, in an environment of its own.

dlib's ResNet (Davis King, CC0) out of face_recognition_models. Reads lines of
[file, [left, top, right, bottom]] in JSON, writes a line with 128 numbers for each.
Faces of one person lie within about 0.6 of each other.
"""

from __future__ import annotations

import json
import sys

import dlib
import face_recognition_models

shape = dlib.shape_predictor(face_recognition_models.pose_predictor_five_point_model_location())
network = dlib.face_recognition_model_v1(face_recognition_models.face_recognition_model_location())
for line in sys.stdin:
    file, box = json.loads(line)
    image = dlib.load_rgb_image(file)
    points = shape(image, dlib.rectangle(*box))
    sys.stdout.write(json.dumps(list(network.compute_face_descriptor(image, points, 5))) + "\n")
