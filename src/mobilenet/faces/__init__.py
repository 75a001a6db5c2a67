"""Faces: detection with landmarks, alignment, embeddings, verification. Nothing here imports torch
until a network is built."""

from .align import TEMPLATE, align_face, similarity
from .anchors import decode_landmarks, encode_landmarks, face_anchors
from .decode import LANDMARKS, Faces, blend, decode_faces, suppress
from .embedding import EmbeddingSpec, create_embedding, embedding_program, normalise
from .metric import (
    HEIGHTS,
    JudgedFaces,
    WiderScore,
    box_side,
    height_subset,
    interocular,
    judge_faces,
    landmark_error,
    pair_faces,
    score_faces,
    wider_scores,
)
from .program import face_program
from .rules import RULES, FaceRules
from .spec import (
    FACES,
    FIVE_FLIPPED,
    FIVE_LANDMARKS,
    SIX_FLIPPED,
    SIX_LANDMARKS,
    FaceSpec,
    blazeface_anchors,
    create_faces,
)
from .verification import Roc, Verification, cosine_similarity, roc, tar_at_far, verify_pairs

__all__ = [
    "FACES",
    "FIVE_FLIPPED",
    "FIVE_LANDMARKS",
    "HEIGHTS",
    "LANDMARKS",
    "RULES",
    "SIX_FLIPPED",
    "SIX_LANDMARKS",
    "TEMPLATE",
    "EmbeddingSpec",
    "FaceRules",
    "FaceSpec",
    "Faces",
    "JudgedFaces",
    "Roc",
    "Verification",
    "WiderScore",
    "align_face",
    "blazeface_anchors",
    "blend",
    "box_side",
    "cosine_similarity",
    "create_embedding",
    "create_faces",
    "decode_faces",
    "decode_landmarks",
    "embedding_program",
    "encode_landmarks",
    "face_anchors",
    "face_program",
    "height_subset",
    "interocular",
    "judge_faces",
    "landmark_error",
    "normalise",
    "pair_faces",
    "roc",
    "score_faces",
    "similarity",
    "suppress",
    "tar_at_far",
    "verify_pairs",
    "wider_scores",
]
