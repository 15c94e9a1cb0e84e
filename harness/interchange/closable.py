"""Give what has a close() a `with` block, at whose end it is closed."""

from abc import ABC, abstractmethod
from typing import Self


class Closable(ABC):
    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
