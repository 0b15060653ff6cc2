#!/usr/bin/env python3
"""Renders the MPEG frames of the demo's synthetic voice; needs LAME (made with 3.100).

Each tone is faded in and out within its six frames, so that any of them may follow one another:
what a frame leaves over for the next one to add to is silence. Without a bit reservoir no frame
needs bytes of another.
"""

import math
import pathlib
import struct
import subprocess

RATE, FRAME, FRAMES, LEAD = 44_100, 1_152, 6, 10
DELAY = 576 + 529  # of LAME's encoder and of a decoder, in samples
FADE, MARGIN_BEFORE, MARGIN_AFTER = 900, 400, 700
AMPLITUDE = 0.16 * 32_767
PITCHES = {"a": 220.0, "b": 246.94, "c": 277.18, "d": 329.63}


def tone(pitch):
    length = FRAME * FRAMES - MARGIN_BEFORE - MARGIN_AFTER
    for i in range(length):
        fade = min(1.0, i / FADE, (length - 1 - i) / FADE)
        yield AMPLITUDE * math.sin(fade * math.pi / 2) ** 2 * math.sin(2 * math.pi * pitch * i / RATE)


def frames(samples):
    pcm = b"".join(struct.pack("<h", round(sample)) for sample in samples)
    options = "--silent -r -s 44.1 --signed --little-endian --bitwidth 16 -m m -b 128 --cbr --nores -t"
    mpeg = subprocess.run(
        ["lame", *options.split(), "-", "-"], input=pcm, stdout=subprocess.PIPE, check=True
    ).stdout
    while mpeg:
        assert mpeg[:2] == b"\xff\xfb" and mpeg[2] & 0xFC == 0x90, "MPEG-1 layer III, 128 kbit/s, 44.1 kHz"
        assert mpeg[4] << 1 | mpeg[5] >> 7 == 0, "uses no bytes of another frame"
        size = 144 * 128_000 // RATE + (mpeg[2] >> 1 & 1)
        yield mpeg[:size]
        mpeg = mpeg[size:]


def main():
    folder = pathlib.Path(__file__).parent
    silence = [0.0] * (FRAME * LEAD)
    for name, pitch in PITCHES.items():
        all_frames = list(frames(silence[DELAY - MARGIN_BEFORE :] + list(tone(pitch)) + silence))
        (folder / f"{name}.mp3").write_bytes(b"".join(all_frames[LEAD : LEAD + FRAMES]))
    (folder / "silence.mp3").write_bytes(list(frames(silence))[LEAD // 2])


main()
