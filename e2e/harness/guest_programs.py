"""Small C programs of the tests, compiled statically, in an image beside the sample image's files."""

import pathlib
import subprocess
import tempfile

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


def pulled_image(huskd, registry, name, programs, more_layers=()):
    """The reference of an image that huskd has: the sample image's layers, these programs in /, and what else."""
    with tempfile.TemporaryDirectory() as directory:
        reference = registry.push(name, layers=[*image_layers(programs, directory), *more_layers])
    huskd.pull(reference)
    return reference


def installed_program_layer(program):
    """A layer with a program that Debian has installed here, and the libraries that it needs."""
    lines = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.splitlines()
    files = [program, *(word for line in lines for word in line.split() if word.startswith("/"))]
    directories = {str(parent) for path in files for parent in pathlib.Path(path.lstrip("/")).parents} - {"."}
    entries = [sample_image.Entry(name) for name in sorted(directories)]
    entries += [sample_image.Entry(path.lstrip("/"), pathlib.Path(path).read_bytes()) for path in files]
    return sample_image.layer_tar(entries)
