"""How the text of an event becomes stored bytes, and text again, without trusting any size.

python-zstandard ignores `max_output_size` when a frame declares its size, so the declared size is
compared with the recorded one before a byte is expanded.
"""

import threading
from typing import NamedTuple

import zstandard

from evstore.errors import Corrupt

TEXT, ZSTD, DELTA, FORGOTTEN = 0, 1, 2, 3  # the values of event.encoding
ZSTD_FROM_BYTES = 512  # below, zstd gains little and costs more than the page it saves
SIZE_BYTES_MAX = 1 << 30
FRAME_BYTES_MAX = 256 << 20
_LEVEL = 3


class _Codecs(threading.local):
    """One compressor and decompressor per thread: they are not safe to share, and dear to make."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=_LEVEL).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_codecs = _Codecs()


def pack(text: bytes, level: int = _LEVEL) -> tuple[int, str | bytes]:
    """Return (encoding, data) for the text of an event, in full."""
    if len(text) >= ZSTD_FROM_BYTES:
        codec = _codecs.compress if level == _LEVEL else zstandard.ZstdCompressor(level).compress
        frame = codec(text)
        if len(frame) < len(text):
            return ZSTD, frame
    return TEXT, text.decode()


class Searchable(NamedTuple):
    """A text to make deltas against; any thread may use it."""

    dictionary: zstandard.ZstdCompressionDict
    parameters: zstandard.ZstdCompressionParameters


def searchable(prefix: bytes, level: int) -> Searchable:
    """Return a text made ready to make deltas against it.

    A level alone would do for short texts only: in a long one zstd would look for matches through a
    window and a table that are too small, and find next to none.
    """
    span = 9 * len(prefix)  # itself, and a text of up to eight times its size
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=span,
        window_log=max(span.bit_length(), zstandard.WINDOWLOG_MIN),
        hash_log=max(len(prefix).bit_length(), zstandard.HASHLOG_MIN),
    )
    dictionary = zstandard.ZstdCompressionDict(prefix, zstandard.DICT_TYPE_RAWCONTENT)
    if level == 1:  # Higher levels find less in a table that was made before the text is known.
        dictionary.precompute_compress(compression_params=parameters)
    return Searchable(dictionary, parameters)


def delta(text: bytes, prefix: Searchable) -> bytes:
    """Return a text as a zstd frame that builds on a searchable one, and declares its size."""
    compressor = zstandard.ZstdCompressor(
        compression_params=prefix.parameters, dict_data=prefix.dictionary
    )
    return compressor.compress(text)


def compress(text: bytes) -> bytes:
    """Return a zstd frame that declares its size."""
    return _codecs.compress(text)


def expand_frame(frame: object) -> str:
    """Return the text of a frame whose size nobody recorded: it may claim up to 256 MiB."""
    if type(frame) is not bytes:
        raise Corrupt("", "a compressed text is not binary")
    try:
        size = zstandard.frame_content_size(frame)
    except zstandard.ZstdError as error:
        raise Corrupt("", f"a compressed text cannot be expanded ({error})") from error
    if size > FRAME_BYTES_MAX:
        raise Corrupt("", f"a compressed text claims a size of {size} bytes")
    return decode(expand(frame, size))


def decode(text: bytes) -> str:
    """Return a text that was expanded; raises Corrupt where it is none."""
    try:
        return str(text, "utf-8")
    except UnicodeDecodeError as error:
        raise Corrupt("", f"a compressed text cannot be read ({error})") from error


def expand(frame: bytes, size: int, prefix: bytes | None = None) -> bytes:
    """Return the text of a zstd frame that must have exactly `size` bytes.

    `prefix` is the text that a delta was made against. Raises Corrupt where the frame is not what
    was recorded.
    """
    if not 0 <= size <= SIZE_BYTES_MAX:
        raise Corrupt("", f"a text claims a size of {size} bytes")
    try:
        if zstandard.frame_content_size(frame) != size:
            raise Corrupt("", "a compressed text has another size than was recorded")
        if prefix is None:
            return _codecs.decompress(frame)
        dictionary = zstandard.ZstdCompressionDict(prefix, zstandard.DICT_TYPE_RAWCONTENT)
        return zstandard.ZstdDecompressor(dict_data=dictionary).decompress(frame)
    except zstandard.ZstdError as error:
        raise Corrupt("", f"a compressed text cannot be expanded ({error})") from error
