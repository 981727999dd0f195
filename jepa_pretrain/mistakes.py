"""What Lightning, torch and the operating system raise for a user's mistake, as one plain line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from jepa_pretrain.contracts import UserError

WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def plain_errors(run: str = "the run") -> Iterator[None]:
    """The user's mistakes as a `UserError`, in whatever they come wrapped."""
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error
    except OSError as error:
        if error.errno not in WRITING:
            raise
        raise UserError(f"cannot write {error.filename or run}: {error.strerror}") from error
    except torch.OutOfMemoryError as error:
        raise UserError(f"the accelerator's memory is full: lower data.batch_size ({_first_line(error)})") from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise UserError(f"memory is full: lower data.batch_size or data.workers ({_first_line(error)})") from error
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a data worker died ({_first_line(error)}); where memory ran out, lower data.workers; "
            "go on with --ckpt_path last"
        ) from error
    except ValueError as error:  # jsonargparse wraps what a constructor raises
        if "`val_check_interval`" in str(error):  # Lightning knows it only when the data are there
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise cause from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(". ")
