"""Small C programs of the tests, compiled statically, in an image beside the sample image's files."""

import pathlib
import subprocess

from harness.registry import sample_image

DIRECTORY = pathlib.Path(__file__).resolve().parents[1]


def compile_program(name, directory):
    """`name`.c of e2e/; the program's path."""
    program = pathlib.Path(directory) / name
    subprocess.run(["gcc", "-O2", "-static", "-o", program, DIRECTORY / f"{name}.c"], check=True)
    return program


def image_layers(names, directory):
    """The sample image's layers and one with these programs in /."""
    programs = [sample_image.Entry(name, compile_program(name, directory).read_bytes()) for name in names]
    return [*sample_image.sample_layers(), sample_image.layer_tar(programs)]
