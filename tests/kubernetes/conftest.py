"""The engine and the image under test are those of the container tests."""

from tests.docker.conftest import engine, image

__all__ = ["engine", "image"]
