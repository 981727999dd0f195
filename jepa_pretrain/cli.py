"""`jepa-pretrain <command>`: every command is one call into a folder of the package."""

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import is_dataclass

from jepa_pretrain.contracts import UserError
from jepa_pretrain.untrusted import printable

COMMANDS = {
    "fit": ("train a recipe: --config recipes/X.yaml", "jepa_pretrain.training:Fit"),
    "shards demo": ("render the demo pictures as shards", "jepa_pretrain.data.demo:demo"),
    "shards demo-video": ("render the demo videos as shards", "jepa_pretrain.data.moving:moving"),
    "shards pack": ("turn pictures or videos into shards with an index", "jepa_pretrain.data.pack:pack"),
    "shards verify": ("re-read shards against their index", "jepa_pretrain.data.verify:verify"),
    "shards show": ("draw a contact sheet of shards", "jepa_pretrain.data.show:show"),
    "eval linear": ("linear probe of a frozen encoder", "jepa_pretrain.evals.linear:linear"),
    "eval knn": ("k-NN classification with a frozen encoder", "jepa_pretrain.evals.knn:knn"),
    "eval attentive": ("attentive probe of a frozen encoder", "jepa_pretrain.evals.attentive:attentive"),
    "eval decode": ("known factors of rendered videos, read from frozen states", "jepa_pretrain.evals.decode:decode"),
    "agent collect": ("record behaviour in an environment as shards", "jepa_pretrain.acting.collect:collect"),
    "agent train": ("train a world model on recorded behaviour", "jepa_pretrain.acting.train:train"),
    "agent critic": ("add a critic to a world model: steps to a goal", "jepa_pretrain.acting.critic:critic"),
    "agent levels": ("levels above a world model, and planning on all of them", "jepa_pretrain.acting.levels:levels"),
    "agent distill": ("teach a policy what the planner does", "jepa_pretrain.acting.distill:distill"),
    "agent configure": ("teach when to react and when to think", "jepa_pretrain.acting.configure:configure"),
    "agent guard": ("give an agent a region to keep out of", "jepa_pretrain.acting.guard:guard"),
    "agent plan": ("let an agent try a few episodes", "jepa_pretrain.acting.plan:plan"),
    "agent show": ("an episode as a GIF and a page: seen, imagined, paid", "jepa_pretrain.acting.show:show"),
    "agent eval": ("how often an agent reaches its goals", "jepa_pretrain.acting.evaluate:evaluate"),
    "agent calibrate": ("may its critic be believed", "jepa_pretrain.acting.calibrate:calibrate"),
    "agent measure": ("how well a world model predicts", "jepa_pretrain.acting.measure:measure"),
    "embed": ("features of a folder of pictures, as a Parquet file", "jepa_pretrain.evals.embed:embed"),
    "export": ("write an encoder for us, timm, transformers, or as a graph", "jepa_pretrain.interop.formats:export"),
    "report": ("write a page of pictures about a run", "jepa_pretrain.report.page:report"),
}


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        _dispatch(argv)
    except UserError as error:
        sys.exit(f"error: {_one_line(error)}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, `head` say, has gone
        sys.stderr.close()
        sys.exit(141)


def _dispatch(argv: list[str]) -> None:
    name = next((n for n in (" ".join(argv[:2]), " ".join(argv[:1])) if n in COMMANDS), None)
    if name is None:
        _show_commands(argv)
        return
    module, function = COMMANDS[name][1].split(":")
    run, rest = getattr(importlib.import_module(module), function), argv[len(name.split()) :]
    if name == "fit":
        run(rest)
        return
    _call(run, rest, f"jepa-pretrain {name}")


def _call(run: Callable[..., None], argv: list[str], prog: str) -> None:
    """Call a command with what the user typed; an argument that is a dataclass is typed as its fields, side by side.

    What is required has its place, and may be named as well: `embed PICTURES OUT X`, `embed PICTURES OUT --encoder X`.
    """
    from jsonargparse import ArgumentParser

    groups = {n: p.annotation for n, p in inspect.signature(run).parameters.items() if is_dataclass(p.annotation)}
    parser = ArgumentParser(prog=prog, description=inspect.getdoc(run).split("\n\n")[0])
    names = set(inspect.signature(run).parameters)
    named = {name for name in names if any(word.partition("=")[0] == f"--{name}" for word in argv)}  # by choice
    parser.add_function_arguments(run, as_group=False, as_positional=True, skip={*groups, *named})
    parser.add_function_arguments(run, as_group=False, as_positional=False, skip=names - named)
    typed = {name: parser.add_class_arguments(group, as_group=True) for name, group in groups.items()}
    given = parser.parse_args(argv).as_dict()
    made = {name: group(**{key: given.pop(key) for key in typed[name]}) for name, group in groups.items()}
    run(**given, **made)


def _show_commands(argv: list[str]) -> None:
    asked = [word for word in argv if word not in ("-h", "--help")]
    if asked == ["--version"]:
        from jepa_pretrain import __version__

        print(f"jepa-pretrain {__version__}")
        return
    below = {n: c for n, c in COMMANDS.items() if n.startswith(" ".join(asked))} if len(asked) < 2 else {}
    print("usage: jepa-pretrain COMMAND [--help] ...\n")
    column = max(map(len, COMMANDS))
    for name, (words, _) in (below or COMMANDS).items():
        print(f"  {name:<{column}} {words}")
    if (asked and asked[0] not in {n.split()[0] for n in COMMANDS}) or len(asked) > 1:
        sys.exit(f"\nerror: no command '{' '.join(asked)}'")
    if argv and not asked:
        print("\nEach command explains itself: jepa-pretrain COMMAND --help")


def _one_line(error: UserError) -> str:
    """The message; what a data worker raised arrives wrapped in its traceback, whose last line is the message."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Caught UserError"):
        return printable(lines[-1].partition("UserError: ")[2])
    return printable(str(error))


if __name__ == "__main__":
    main()
