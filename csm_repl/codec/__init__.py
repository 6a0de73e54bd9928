"""Sound to codes and back. Mimi is what CSM-1B uses; a model folder's `codec.json` can say otherwise."""

from csm_repl.codec.base import Codec, DecodeStream, DecodeStreams, chunk_sizes
from csm_repl.codec.istft import IstftCodec
from csm_repl.codec.load import load_codec
from csm_repl.codec.mimi import MimiCodec

__all__ = [
    "Codec",
    "DecodeStream",
    "DecodeStreams",
    "IstftCodec",
    "MimiCodec",
    "chunk_sizes",
    "load_codec",
]
