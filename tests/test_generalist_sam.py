"""Segment Anything behind the protocol: its real code, with a small model made on the spot."""

from functools import partial

import numpy as np
import pytest
import segment_anything
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.predictor import SamPredictor

from nnunet_gmabs.config import GeneralistConfig
from nnunet_gmabs.errors import InputError
from nnunet_gmabs.generalist import sam_weights
from nnunet_gmabs.generalist.models import load_generalist
from nnunet_gmabs.generalist.prompts import Prompt
from nnunet_gmabs.generalist.sam import with_shape, without_shape

WIDTH, SIZE = 32, 64


def small_sam(checkpoint=None):
    """A Sam of 64 x 64 inputs; an encoder of width 32 with one windowed and one global block."""
    prompt_width, grid = 16, SIZE // 8
    transformer = TwoWayTransformer(depth=1, embedding_dim=prompt_width, mlp_dim=32, num_heads=2)
    return Sam(
        ImageEncoderViT(
            img_size=SIZE,
            patch_size=8,
            embed_dim=WIDTH,
            depth=2,
            num_heads=2,
            out_chans=prompt_width,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(1,),
        ),
        PromptEncoder(prompt_width, (grid, grid), (SIZE, SIZE), mask_in_chans=4),
        MaskDecoder(transformer_dim=prompt_width, transformer=transformer, num_multimask_outputs=3),
    ).eval()


@pytest.fixture(autouse=True)
def small_models_count_as_vit_b(monkeypatch, tmp_path):
    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", small_sam)
    monkeypatch.setitem(sam_weights.WIDTHS, WIDTH, "vit_b")
    monkeypatch.setenv("nnUNet_gmabs_weights", str(tmp_path / "weights"))


@pytest.fixture(scope="module")
def sam():
    torch.manual_seed(0)
    model = small_sam()
    for parameter in model.parameters():  # zero-initialised positions would hide a mistake
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def checkpoint(sam, tmp_path):
    path = tmp_path / "small.pth"
    torch.save(sam.state_dict(), path)
    return path


@pytest.fixture
def generalist(checkpoint):
    return load_generalist(GeneralistConfig("sam", checkpoint))


def a_slice(shape=(20, 30), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 1), np.uint8).repeat(3, 2)


def a_prompt(points=2):
    xy = np.array([[5.0, 6.0], [20.0, 10.0], [3.0, 17.0]])[:points]
    return Prompt(np.array([4.0, 3.0, 15.0, 12.0]), xy, np.array([1, 0, 1])[:points])


def test_masks_and_qualities_for_each_prompt(generalist):
    masks, qualities = generalist.segment(generalist.encode(a_slice()), [a_prompt(2), a_prompt(0), a_prompt(3)])
    assert masks.shape == (3, 20, 30) and masks.dtype == bool
    assert qualities.shape == (3,) and qualities.dtype == np.float32
    assert (qualities >= 0).all() and (qualities <= 1).all()


def test_no_prompt_gives_no_mask(generalist):
    masks, qualities = generalist.segment(generalist.encode(a_slice()), [])
    assert masks.shape == (0, 20, 30) and qualities.shape == (0,)


@pytest.mark.parametrize("shape", [(20, 30), (64, 40), (33, 33)])
def test_the_answer_is_that_of_the_packages_own_predictor(sam, generalist, shape):
    picture, prompt = a_slice(shape), a_prompt(2)
    predictor = SamPredictor(sam)
    predictor.set_image(picture)
    height, width = predictor.input_size
    scale = np.array([width / shape[1], height / shape[0]])
    edges = np.array([[4.0, 3.0], [16.0, 13.0]]) - 0.5 / scale  # the model adds half a pixel of its own
    masks, quality, _ = predictor.predict(
        (prompt.points_xy + 0.5) - 0.5 / scale, prompt.point_labels, edges.reshape(4), multimask_output=True
    )
    ours, our_quality = generalist.segment(generalist.encode(picture), [prompt])
    assert abs(our_quality[0] - np.clip(quality.max(), 0, 1)) < 0.02  # float16, and another resizing
    assert (ours[0] == masks[quality.argmax()]).mean() > 0.97


def test_prompts_reach_the_model_in_pixels_of_its_input(generalist):
    seen = []
    hook = generalist.sam.prompt_encoder.register_forward_pre_hook(
        lambda module, arguments, named: seen.append(named), with_kwargs=True
    )
    generalist.segment(generalist.encode(a_slice((20, 30))), [a_prompt(1), a_prompt(2)])  # becomes 43 x 64
    hook.remove()
    x, y = 64 / 30, 43 / 20
    edges = [4 * x - 0.5, 3 * y - 0.5, 16 * x - 0.5, 13 * y - 0.5]
    np.testing.assert_allclose(seen[0]["boxes"], [edges, edges], rtol=1e-5)
    points, labels = seen[0]["points"]
    np.testing.assert_allclose(points[1], [[5.5 * x - 0.5, 6.5 * y - 0.5], [20.5 * x - 0.5, 10.5 * y - 0.5]], rtol=1e-5)
    assert labels.tolist() == [[1, -1], [1, 0]]
    assert seen[0]["masks"] is None


def test_prompts_of_one_slice_do_not_disturb_each_other(generalist):
    embedding = generalist.encode(a_slice())
    prompts = [a_prompt(2), a_prompt(3)]
    together, quality = generalist.segment(embedding, prompts)
    for k, prompt in enumerate(prompts):
        alone, own_quality = generalist.segment(embedding, [prompt])
        np.testing.assert_allclose(quality[k], own_quality[0], atol=0.05)  # filled up with "not a point"
        assert (together[k] == alone[0]).mean() > 0.95


def test_several_slices_in_one_call_of_the_encoder_and_one_call_of_the_decoder_for_each(checkpoint):
    generalist = load_generalist(GeneralistConfig("sam", checkpoint, slices_at_once=2))
    slices = [a_slice((20, 30), 0), a_slice((40, 25), 1), a_slice((20, 30), 2)]
    calls = {"encoder": [], "decoder": []}
    encoder, decoder = generalist.sam.image_encoder, generalist.sam.mask_decoder
    encoder.register_forward_hook(lambda m, i, o: calls["encoder"].append(len(o)))
    decoder.register_forward_hook(lambda m, i, o: calls["decoder"].append(len(o[0])))
    embeddings = generalist.encode_many(slices)
    answers = generalist.segment_many([(embedding, [a_prompt(2)] * 3) for embedding in embeddings])
    assert calls == {"encoder": [2, 1], "decoder": [3, 3, 3]}
    assert [masks.shape for masks, _ in answers] == [(3, 20, 30), (3, 40, 25), (3, 20, 30)]
    for picture, embedding in zip(slices, embeddings, strict=True):
        np.testing.assert_allclose(embedding, generalist.encode(picture), atol=2e-2)


def test_an_embedding_is_one_float16_array_that_knows_the_slices_shape(generalist):
    embedding = generalist.encode(a_slice((20, 30)))
    assert embedding.dtype == np.float16 and embedding.shape == (17, 8, 8)
    features = np.random.default_rng(0).random((4, 2, 2)).astype(np.float16)
    for shape in [(20, 30), (512, 1024), (3000, 5000)]:
        back, found = without_shape(with_shape(features, shape))
        assert found == shape and (back == features).all()


def test_the_second_pass_asks_with_the_first_ones_mask(checkpoint):
    once, twice = (load_generalist(GeneralistConfig("sam", checkpoint, second_pass=second)) for second in (False, True))
    seen = []
    twice.sam.prompt_encoder.mask_downscaling.register_forward_hook(lambda m, i, o: seen.append(i[0].shape))
    embedding = once.encode(a_slice())
    first, second = once.segment(embedding, [a_prompt()]), twice.segment(embedding, [a_prompt()])
    assert seen == [(1, 1, 32, 32)]
    assert first[1][0] != second[1][0]


def test_a_constant_slice_gives_finite_answers(generalist):
    _, qualities = generalist.segment(generalist.encode(np.zeros((20, 30, 3), np.uint8)), [a_prompt()])
    assert np.isfinite(qualities).all()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state},
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
    ],
)
def test_wrapped_weights_load(sam, generalist, tmp_path, wrap):
    path = tmp_path / "wrapped.pth"
    torch.save(wrap(sam.state_dict()), path)
    embedding = generalist.encode(a_slice())
    np.testing.assert_array_equal(load_generalist(GeneralistConfig("sam", path)).encode(a_slice()), embedding)


def test_weights_are_found_in_the_folder_for_weights(sam, tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "sam_vit_b_01ec64.pth"
    torch.save(sam.state_dict(), path)
    monkeypatch.delitem(sam_weights.SHA256, path.name)
    assert load_generalist(GeneralistConfig("sam")).weights_hash == sam_weights.sha256(path)


def test_missing_weights_say_where_to_get_them_and_where_to_put_them(tmp_path):
    with pytest.raises(InputError, match=r"dl.fbaipublicfiles.com\S*sam_vit_b_01ec64.pth to .*weights"):
        load_generalist(GeneralistConfig("sam"))
    with pytest.raises(InputError, match="nowhere.pth: no such file"):
        load_generalist(GeneralistConfig("sam", tmp_path / "nowhere.pth"))


def test_a_published_file_with_another_content_is_refused(sam, tmp_path):
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(sam.state_dict(), path)
    with pytest.raises(InputError, match="SHA-256.*incomplete or altered"):
        load_generalist(GeneralistConfig("sam", path))


def test_a_truncated_file_is_refused(checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(InputError, match="small.pth: cannot be read.*truncated"):
        load_generalist(GeneralistConfig("sam", checkpoint))


class Payload:
    def __reduce__(self):
        return (print, ("this ran",))


def test_a_file_that_would_run_code_is_refused(tmp_path, capsys):
    path = tmp_path / "code.pth"
    torch.save({"model": Payload()}, path)
    with pytest.raises(InputError, match="cannot be read"):
        load_generalist(GeneralistConfig("sam", path))
    assert "this ran" not in capsys.readouterr().out


ENCODER = "image_encoder.pos_embed"


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ({ENCODER: torch.zeros(1, 4, 4, 1024)}, "vit_l"),
        ({ENCODER: torch.zeros(1, 4, 4, 1280)}, "vit_h"),
        ({ENCODER: torch.zeros(1, 4, 4, 5)}, "width 5"),
        ({"image_encoder.layers.0.weight": torch.zeros(1)}, "MobileSAM"),
        ({"image_encoder.trunk.pos_embed": torch.zeros(1)}, "SAM 2"),
        ({"vision_encoder.pos_embed": torch.zeros(1)}, "transformers"),
        ({"network_weights": {"a": torch.zeros(1)}}, "nnU-Net"),
        ({"conv.weight": torch.zeros(1)}, "something else"),
    ],
)
def test_weights_of_another_model_are_refused_by_name(tmp_path, state, name):
    path = tmp_path / "other.pth"
    torch.save(state, path)
    with pytest.raises(InputError, match=f"other.pth: looks like .*{name}.*ask for vit_b"):
        load_generalist(GeneralistConfig("sam", path))


def test_something_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "list.pth"
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="holds list"):
        load_generalist(GeneralistConfig("sam", path))


def test_weights_that_lack_a_part_are_refused(sam, tmp_path):
    path = tmp_path / "half.pth"
    torch.save({k: v for k, v in sam.state_dict().items() if k.startswith("image_encoder")}, path)
    with pytest.raises(InputError, match="half.pth: does not fit segment-anything's vit_b"):
        load_generalist(GeneralistConfig("sam", path))


def test_mobile_sam_says_how_it_is_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mobile_sam", None)
    with pytest.raises(InputError, match=r"pip install git\+https://github.com/ChaoningZhang/MobileSAM"):
        load_generalist(GeneralistConfig("mobile_sam"))


def test_mobile_sam_goes_through_the_same_code(monkeypatch, tmp_path):
    module = type("mobile_sam", (), {"sam_model_registry": {"vit_t": small_sam}})
    monkeypatch.setitem(__import__("sys").modules, "mobile_sam", module)
    monkeypatch.setitem(sam_weights.WIDTHS, WIDTH, "vit_t")
    path = tmp_path / "small.pth"
    torch.save(small_sam().state_dict(), path)
    generalist = load_generalist(GeneralistConfig("mobile_sam", path))
    assert generalist.name == "mobile_sam"
    assert generalist.segment(generalist.encode(a_slice()), [a_prompt()])[0].shape == (1, 20, 30)


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="'sam3' is unknown"):
        load_generalist(GeneralistConfig("sam3"))
