"""How the text of an event becomes stored bytes, and text again, without trusting any size.

python-zstandard ignores `max_output_size` when a frame declares its size, so the declared size is
compared with the recorded one before a byte is expanded.
"""

import threading

import zstandard

from evstore.errors import Corrupt

TEXT, ZSTD, DELTA, FORGOTTEN = 0, 1, 2, 3  # the values of event.encoding
ZSTD_FROM_BYTES = 512  # below, zstd gains little and costs more than the page it saves
SIZE_BYTES_MAX = 1 << 30
FRAME_BYTES_MAX = 256 << 20


class _Codecs(threading.local):
    """One compressor and decompressor per thread: they are not safe to share, and dear to make."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=3).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_codecs = _Codecs()


def pack(text: bytes) -> tuple[int, str | bytes]:
    """Return (encoding, data) for the text of an event."""
    if len(text) >= ZSTD_FROM_BYTES:
        frame = _codecs.compress(text)
        if len(frame) < len(text):
            return ZSTD, frame
    return TEXT, text.decode()


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
    return expand(frame, size)


def expand(frame: bytes, size: int, prefix: str | None = None) -> str:
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
            return str(_codecs.decompress(frame), "utf-8")
        dictionary = zstandard.ZstdCompressionDict(prefix.encode(), zstandard.DICT_TYPE_RAWCONTENT)
        return str(zstandard.ZstdDecompressor(dict_data=dictionary).decompress(frame), "utf-8")
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise Corrupt("", f"a compressed text cannot be expanded ({error})") from error
