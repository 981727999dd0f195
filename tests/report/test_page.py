import base64
import io
import json
import re

import pytest
import torch
import yaml
from known_features import write_shard
from PIL import Image
from small_hierarchies import first, hierarchy, upper

from jepa_pretrain import FrozenEncoder
from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.data.moving import moving
from jepa_pretrain.data.spans import Span
from jepa_pretrain.interop import export
from jepa_pretrain.models.vit import ViT
from jepa_pretrain.report import contents, features, landscape, masks
from jepa_pretrain.report.page import report


def evaluation(encoder, top1, protocol="linear", untrained=False):
    chosen = {"layers": "last", "batch_norm": False, "lr": 1.0, "weight_decay": 0.0}
    interval = [top1 - 2, top1 + 2]
    return {
        "protocol": protocol, "encoder": encoder, "top1": top1, "interval": interval, "test_samples": 20,
        "untrained": untrained, "chosen": chosen, "k": 5, "layers": "last",
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "ijepa <demo>"
    torch.manual_seed(0)
    encoder = ViT(image_size=16, patch=4, width=24, depth=2, heads=2)
    folder.mkdir()
    export.write(encoder, folder / "export", {"method": "IJEPA", "step": 30, "git": "abc123"})
    masker = {
        "class_path": "jepa_pretrain.masking.MultiBlock",
        "init_args": {  # as a run writes them, with every default
            "targets": 4,
            "target_scale": [0.1, 0.2],
            "target_aspect": [0.75, 1.5],
            "context_scale": [0.85, 1.0],
            "min_keep": 1,
            "tries": 100,
        },
    }
    data = {"init_args": {"val": write_shard(tmp_path / "val.tar"), "masker": masker}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": data, "trainer": {"accelerator": "cpu"}}))
    (folder / "metrics.csv").write_text("step,train/loss,train/rank,probe/knn_top1\n0,1,5,\n10,.5,6,30\n20,.4,7,40\n")
    (folder / "eval").mkdir()
    for name, result in {
        "a": evaluation(str(folder / "export"), 60.0),
        "b": evaluation(f"random:{folder / 'export'}", 40.0, untrained=True),
        "c": evaluation("pixels", 50.0),
        "d": evaluation("pixels", 30.0, protocol="knn"),
    }.items():
        (folder / "eval" / f"{name}.json").write_text(json.dumps(result))
    return folder


def written(run, **kwargs):
    report(str(run), **kwargs)
    return (run / "report.html").read_text()


def test_a_whole_run(run):
    page = written(run)
    assert "Not shown" not in page and "role='alert'" not in page
    assert page.count("data:image/svg+xml") == 3  # loss, rank, probes
    assert page.count("masked picture") == 8 and page.count("alt='features'") == 8 and page.count("class='row'") == 8
    assert "IJEPA" in page and "abc123" in page
    shown = [
        page.index(name) for name in ("this run&#x27;s encoder", "raw pixels", "same architecture, untrained", "30.00")
    ]
    assert shown == sorted(shown)  # best first, then the other protocol


def test_page_needs_no_network_and_runs_no_script(run):
    page = written(run)
    addresses = re.findall(r"(?:src|href)='([^']*)'", page) + re.findall(r"url\(([^)]*)\)", page)
    assert addresses and all(address.startswith("data:image/") for address in addresses)
    assert "<script" not in page and "ijepa <demo>" not in page and "ijepa &lt;demo&gt;" in page


def test_an_encoder_no_better_than_untrained_is_called_so(run):
    (run / "eval" / "a.json").write_text(json.dumps(evaluation(str(run / "export"), 41.0)))
    assert "not clearly better than the same architecture untrained (40.0 %)" in written(run)


def test_an_empty_run_says_what_is_missing(tmp_path):
    run = tmp_path / "fresh"
    (run / "checkpoints").mkdir(parents=True)
    page = written(run)
    assert "no metrics.csv" in page and "neither an export nor a checkpoint yet" in page
    assert "jepa-pretrain eval linear" in page


def test_parts_that_are_damaged_or_gone(run):
    (run / "eval" / "e.json").write_text("{")
    config = {"data": {"init_args": {"val": str(run / "gone-*.tar")}}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    page = written(run)
    assert "e.json is no result of an evaluation" in page and "gone-" in page
    (run / "export" / "model.safetensors").write_bytes(b"")
    assert "truncated or damaged" in written(run)


def test_a_method_without_masks_and_other_pictures(run, tmp_path):
    (run / "config.yaml").write_text("{}")
    page = written(run, data=write_shard(tmp_path / "other.tar", seed=3))
    assert "this method uses no masks" in page and page.count("alt='features'") == 8


def test_users_mistakes(run, tmp_path):
    with pytest.raises(UserError, match="is no run folder"):
        report(str(tmp_path / "nowhere"))
    with pytest.raises(UserError):
        report(str(run), data=str(tmp_path / "none-*.tar"))
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match="damaged"):
        report(str(run))


def test_an_encoder_without_a_map_has_no_feature_pictures(run):
    export.write(ViT(image_size=16, patch=16, width=24, depth=2, heads=2), run / "export", {})
    page = written(run)
    assert "a single token per picture" in page and "alt='features'" not in page and page.count("class='row'") == 8


def test_alarms_are_drawn_and_told(run):
    calm = written(run)
    assert "Alarms" not in calm
    lines = [{"step": 10, "kind": "spike", "message": "the loss has <jumped>", "value": 9.0}]
    lines += [{"step": 11 + n, "kind": "skipped", "message": f"number {n}", "value": "nan"} for n in range(30)]
    (run / "alarms.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4')
    page = written(run)
    assert "1 spike, 30 skipped" in page and "Step 10: the loss has &lt;jumped&gt;" in page
    assert page.count("with the alarms marked") == 2 and page.count("data:image/svg+xml") == 5
    assert "number 18" in page and "number 19" not in page and "And 11 more" in page


def test_a_hierarchy_shows_its_energies(run):
    torch.manual_seed(0)
    made = hierarchy(first(), upper(4, macro=0)).eval()
    (run / "eval" / "kept").mkdir()
    (run / "export").rename(run / "eval" / "kept" / "export")
    export.write(made, run / "export", {"method": "HJEPA", "step": 30})
    page = written(run)
    assert "<h2>Energies</h2>" in page and "<td>level 2</td>" in page and "energies by level and horizon" in page
    clips, actions = contents.clips(
        yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]["val"], {}, 16, 9
    )
    assert clips.shape[1:] == (3, 9, 16, 16) and actions is None
    assert landscape.energies(made, clips) in page, "of the clips of the recipe's shards"
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["init_args"]["span"] = {"frames": 9, "stride": "all"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert "span is damaged" in written(run)


@pytest.fixture
def video_run(tmp_path):
    """A run on rendered videos, with two maskers and a decoding."""
    folder, shards = tmp_path / "vjepa", tmp_path / "videos"
    moving(str(shards), train=12, val=12, size=16, frames=8)
    torch.manual_seed(0)
    export.write(ViT(image_size=16, patch=4, width=24, depth=2, heads=2, frames=4, tubelet=2), folder / "export", {})
    maskers = [
        {"class_path": "jepa_pretrain.masking.Tubes", "init_args": {"blocks": blocks, "scale": [share, share]}}
        for blocks, share in ((8, 0.15), (2, 0.5))
    ]
    arguments = {"val": f"{shards}/val-*.tar", "masker": maskers, "span": {"frames": 4, "stride": 2}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": arguments}}))
    (folder / "eval").mkdir()
    scores = {"position": {"score": 0.53, "interval": [0.5, 0.6]}, "shape": {"score": 31.5, "interval": [30, 40]}}
    decoded = {"protocol": "decode", "encoder": str(folder / "export"), "layers": {"last layer": scores}}
    (folder / "eval" / "decode.json").write_text(json.dumps(decoded))
    return folder


def drawn(page):
    """Sizes of the pictures of clips."""
    found = re.findall(r"<img class='film'[^>]*base64,([^']+)'", page)
    return [Image.open(io.BytesIO(base64.b64decode(one))).size for one in found]


def test_a_run_on_videos_shows_clips(video_run):
    page = written(video_run)
    assert page.count("Not shown") == 2  # neither metrics nor a probe
    sizes = drawn(page)
    steps = 2 * 144 + masks.GAP
    assert sizes[:4] == [(steps, 3 * 144 + 2 * masks.GAP)] * 4  # frames, and a row for each masker
    assert sizes[4:8] == [(2 * 144, 2 * 144)] * 4  # frames, and their features
    assert sizes[8:] == [(2 * 64, 64)] * len(sizes[8:]) and len(sizes) == 8 + 8 * 6  # neighbours
    assert "position, R2" in page and "0.530" in page and "31.5" in page and "decode.json" not in page


def test_frames_and_features_follow_the_recipe(video_run):
    encoder = FrozenEncoder.load(video_run / "export")
    config = contents.recipe(video_run)
    span = contents.span(config, encoder.frames)
    assert span == Span(4, 2)
    mixed = {"data": {"init_args": {"videos": config["data"], "every": 2}}}
    assert contents.span(mixed, 4) == Span(4, 2) and contents.source_of(mixed) == contents.source_of(config)
    for odd in ({"stride": "x"}, {"fps": -1}, {"fps": float("nan")}, {"stride": 10**9}):
        with pytest.raises(UserError, match="span is damaged"):
            contents.span({"data": {"init_args": {"span": odd}}}, 4)
    assert contents.span({}, 4) == Span(4)
    tokens = encoder(contents.pictures(contents.source_of(config), 16, span).clips[:2])
    colours = features.colours(tokens, encoder.grid)  # (2, 3, 4, 2 * 4)
    still = features.colours(tokens.unflatten(1, (2, 16)).flatten(0, 1), Grid(1, 4, 4))
    assert torch.equal(colours[:, :, :, :4], still[0::2]) and torch.equal(colours[:, :, :, 4:], still[1::2])


def test_a_damaged_decoding_is_told(video_run):
    path = video_run / "eval" / "decode.json"
    path.write_text(path.read_text().replace("0.53", '"much"'))
    page = written(video_run)
    assert "decode.json is no result" in page and "Decoded factors" not in page
