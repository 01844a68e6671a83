"""matterport's pictures: what is drawn, shown, written and printed, and what is refused."""

import inspect
import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon, Rectangle
from PIL import Image

import mrcnn
from mrcnn import visualize
from mrcnn.masks import extract_bboxes
from mrcnn.old_imports import MODULES

NAMES = ["BG", "red", "green"]
SMALL = {"figsize": (2, 2)}


@pytest.fixture(autouse=True)
def no_figure_stays():
    yield
    plt.close("all")


@pytest.fixture
def instances():
    """Arguments of `display_instances`: one instance at the image's corner, one in its middle."""
    masks = np.zeros((30, 40, 2), bool)
    masks[:10, :8, 0] = True
    masks[12:20, 15:35, 1] = True
    image = np.full((30, 40, 3), 100, np.uint8)
    return [image, extract_bboxes(masks), masks, np.array([1, 2]), NAMES]


def of_type(axes, kind):
    return [patch for patch in axes.patches if isinstance(patch, kind)]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def shown(axes):
    """The picture on the axes."""
    (picture,) = axes.images
    return np.asarray(picture.get_array())


# ---- names -----------------------------------------------------------------------------------

MATTERPORT = {
    "display_images": "images titles cols cmap norm interpolation",
    "random_colors": "N bright",
    "apply_mask": "image mask color alpha",
    "display_instances": "image boxes masks class_ids class_names scores title figsize ax "
    "show_mask show_bbox colors captions",
    "display_differences": "image gt_box gt_class_id gt_mask pred_box pred_class_id pred_score "
    "pred_mask class_names title ax show_mask show_box iou_threshold score_threshold",
    "draw_rois": "image rois refined_rois mask class_ids class_names limit",
    "draw_box": "image box color",
    "display_top_masks": "image mask class_ids class_names limit",
    "plot_precision_recall": "AP precisions recalls",
    "plot_overlaps": "gt_class_ids pred_class_ids pred_scores overlaps class_names threshold",
    "draw_boxes": "image boxes refined_boxes masks captions visibilities title ax",
    "display_table": "table",
    "display_weight_stats": "model",
}


@pytest.mark.parametrize("name", MATTERPORT)
def test_takes_matterports_arguments_in_their_order(name):
    parameters = inspect.signature(getattr(visualize, name)).parameters.values()
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert positional == MATTERPORT[name].split()


def test_all_names_are_public():
    own = {*visualize.__all__} - {*MODULES["visualize"]}
    assert own == {*MATTERPORT, "display_augmented", "plot_confusion_matrix"}
    assert visualize.patches.Polygon is visualize.Polygon is Polygon
    assert all(hasattr(visualize, name) for name in visualize.__all__)


def test_no_other_module_imports_it():
    # A network is trained and served without its pictures.
    modules = Path(mrcnn.__file__).parent.glob("*.py")
    others = [path for path in modules if path.stem not in ("visualize", "drawing", "plots")]
    assert others
    imports = re.compile(r"^\s*(from|import)\s.*\b(visualize|drawing)\b", re.MULTILINE)
    assert [path.name for path in others if imports.search(path.read_text())] == []


# ---- display_instances -----------------------------------------------------------------------


def test_each_instance_has_box_outline_and_caption(instances):
    axes = visualize.display_instances(*instances, np.array([0.5, 0.98765]), "a title", **SMALL)
    corner, middle = of_type(axes, Rectangle)
    assert corner.get_bbox().bounds == (-0.5, -0.5, 8, 10)
    assert middle.get_bbox().bounds == (14.5, 11.5, 20, 8)
    assert len(of_type(axes, Polygon)) == 2
    assert texts(axes) == ["red 0.500", "green 0.988"]
    assert axes.get_title() == "a title"


def test_without_scores_captions_are_names(instances):
    assert texts(visualize.display_instances(*instances, **SMALL)) == ["red", "green"]


def test_a_score_of_zero_is_no_score(instances):
    # display_differences gives ground truth such scores in matterport.
    axes = visualize.display_instances(*instances, np.array([0.0, 0.5]), **SMALL)
    assert texts(axes) == ["red", "green 0.500"]


def test_masks_are_tinted_and_the_image_is_not_changed(instances):
    image, _, masks, *_ = instances
    colors = [(1.0, 0.0, 0.0), "blue"]
    picture = shown(visualize.display_instances(*instances, colors=colors, **SMALL))
    assert (image == 100).all()
    expected = image.copy()
    expected[masks[:, :, 0]] = (177, 50, 50)
    expected[masks[:, :, 1]] = (50, 50, 177)
    np.testing.assert_array_equal(picture, expected)


def test_outlines_follow_the_border_even_at_the_edge_of_the_image(instances):
    axes = visualize.display_instances(*instances, **SMALL)
    outline = of_type(axes, Polygon)[0].get_xy()
    assert outline.min(axis=0).tolist() == [-0.5, -0.5]
    assert outline.max(axis=0).tolist() == [7.5, 9.5]


def test_outlines_enclose_each_part_of_a_mask(instances):
    instances[2][25:28, 2:6, 0] = True
    instances[2][14:17, 20:25, 1] = False  # a hole
    axes = visualize.display_instances(*instances, **SMALL)
    assert len(of_type(axes, Polygon)) == 4


def test_masks_are_needed(instances):
    image, boxes, _, *rest = instances
    with pytest.raises(ValueError, match=r"masks is None.*draw_boxes"):
        visualize.display_instances(image, boxes, None, *rest, show_mask=False, **SMALL)


def test_a_mask_without_pixels_has_no_outline(instances):
    instances[2][:] = False
    axes = visualize.display_instances(*instances, **SMALL)
    assert not of_type(axes, Polygon)
    assert len(of_type(axes, Rectangle)) == 2


def test_masks_and_boxes_can_be_left_out(instances):
    axes = visualize.display_instances(*instances, show_mask=False, show_bbox=False, **SMALL)
    assert not of_type(axes, Rectangle)
    assert len(of_type(axes, Polygon)) == 2  # outlines stay, as in matterport
    np.testing.assert_array_equal(shown(axes), instances[0])


def test_boxes_of_zeros_are_skipped(instances):
    instances[1][0] = 0
    instances[3][0] = 99  # what has no box needs no name
    axes = visualize.display_instances(*instances, **SMALL)
    assert texts(axes) == ["green"]
    assert len(axes.patches) == 2


def test_captions_replace_names_and_empty_ones_are_not_drawn(instances):
    axes = visualize.display_instances(*instances, captions=["", "$_$"], **SMALL)
    assert texts(axes) == ["$_$"]
    axes.figure.canvas.draw()  # dollar signs do not make a formula


def test_lists_left_empty_count_as_not_given(instances):
    axes = visualize.display_instances(*instances, colors=[], captions=[], **SMALL)
    assert texts(axes) == ["red", "green"]


def test_more_colours_than_instances_are_accepted(instances):
    axes = visualize.display_instances(*instances, colors=["red", "lime", "blue"], **SMALL)
    edges = [to_rgb(patch.get_edgecolor()) for patch in of_type(axes, Polygon)]
    assert edges == [(1, 0, 0), (0, 1, 0)]


def test_a_crowd_is_named_by_its_class(instances):
    instances[3][0] = -2
    assert texts(visualize.display_instances(*instances, **SMALL)) == ["green", "green"]


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 1), (30, 40, 4)])
def test_grey_and_rgba_images_are_shown(instances, shape):
    instances[0] = np.full(shape, 100, np.uint8)
    assert shown(visualize.display_instances(*instances, **SMALL)).shape == (30, 40, 3)


def test_captions_run_towards_the_middle_of_the_image(instances):
    axes = visualize.display_instances(*instances, **SMALL)
    left, right = axes.texts
    assert (left.get_horizontalalignment(), left.get_position()[0]) == ("left", -0.5)
    assert (right.get_horizontalalignment(), right.get_position()[0]) == ("right", 34.5)
    # At the upper edge there is no room above the box.
    assert left.get_verticalalignment() == "top"
    assert right.get_verticalalignment() == "bottom"


def test_captions_contrast_with_their_ground(instances):
    axes = visualize.display_instances(*instances, colors=["yellow", "navy"], **SMALL)
    assert [text.get_color() for text in axes.texts] == ["black", "white"]


def test_without_instances_the_image_is_shown_and_a_warning_logged(caplog):
    image = np.full((20, 20, 3), 7, np.uint8)
    nothing = np.zeros((0, 4), int), np.zeros((20, 20, 0), bool), np.zeros(0, int)
    with caplog.at_level(logging.WARNING, logger="mrcnn"):
        axes = visualize.display_instances(image, *nothing, NAMES, np.zeros(0), **SMALL)
    assert "No instances to display" in caplog.text
    np.testing.assert_array_equal(shown(axes), image)
    assert not axes.patches and not axes.texts


def test_a_class_without_a_name_is_an_error(instances):
    instances[3][1] = 3
    with pytest.raises(ValueError, match="Class 3 has no name: class_names has 3 names"):
        visualize.display_instances(*instances, **SMALL)


def test_without_names_is_an_error(instances):
    with pytest.raises(ValueError, match="has no name: class_names is not given"):
        visualize.display_instances(*instances[:4], None, **SMALL)


@pytest.mark.parametrize(
    ("position", "value", "name"),
    [
        (2, np.zeros((30, 40, 3), bool), "2 boxes but 3 masks"),
        (3, np.array([1]), "2 boxes but 1 class_ids"),
    ],
)
def test_instances_of_other_numbers_are_an_error(instances, position, value, name):
    instances[position] = value
    with pytest.raises(ValueError, match=name):
        visualize.display_instances(*instances, **SMALL)


@pytest.mark.parametrize("name", ["scores", "colors", "captions"])
def test_lists_that_are_too_short_are_an_error(instances, name):
    with pytest.raises(ValueError, match=f"2 boxes but 1 {name}"):
        visualize.display_instances(*instances, **{name: [0.5]}, **SMALL)


def test_mini_masks_are_an_error_that_names_the_remedy(instances):
    instances[2] = np.zeros((14, 14, 2), bool)
    with pytest.raises(ValueError, match=r"\(14, 14, 2\).*\(30, 40\).*expand_mask"):
        visualize.display_instances(*instances, **SMALL)


# ---- windows and files -----------------------------------------------------------------------


@pytest.fixture
def windows(monkeypatch):
    """The calls of plt.show(), under a backend that has windows."""
    calls = []
    monkeypatch.setattr(plt, "show", lambda: calls.append(plt.get_fignums()))
    monkeypatch.setattr(plt, "get_backend", lambda: "qtagg")
    return calls


def test_a_window_opens_where_there_are_windows(instances, windows):
    visualize.display_instances(*instances, **SMALL)
    assert windows == [[1]]


def test_no_window_opens_without_a_screen(instances, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("plt.show() warns under Agg"))
    axes = visualize.display_instances(*instances, **SMALL)
    assert plt.gca() is axes  # for plt.savefig


def test_on_given_axes_no_window_opens(instances, windows):
    axes = plt.figure().subplots()
    assert visualize.display_instances(*instances, ax=axes) is axes
    assert windows == []


def test_save_to_writes_a_picture_and_opens_nothing(instances, windows, tmp_path):
    path = tmp_path / "new" / "instances.png"
    visualize.display_instances(*instances, save_to=path, **SMALL)
    with Image.open(path) as picture:
        picture.load()
        assert 100 < picture.width < 300
        assert np.asarray(picture.convert("RGB")).std() > 10
    assert list(path.parent.iterdir()) == [path]
    assert windows == [] and plt.get_fignums() == []


def test_save_to_loses_no_caption_beyond_the_axes(tmp_path):
    image, box = np.zeros((4, 30, 3), np.uint8), np.array([[0, 0, 4, 4]])
    mask, path = np.zeros((4, 30, 1), bool), tmp_path / "wide.png"
    for captions in (["i"], ["a caption about twice as wide as all of the image"]):
        visualize.display_instances(
            image, box, mask, [1], NAMES, captions=captions, figsize=(3, 3), save_to=path
        )
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        # Matplotlib leaves a margin around everything that is drawn.
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (border == 255).all()


def test_axes_in_a_part_of_a_figure_are_saved_with_all_of_it(instances, tmp_path):
    part, _ = plt.figure(figsize=(4, 2)).subfigures(1, 2)
    path = tmp_path / "part.png"
    visualize.display_instances(*instances, ax=part.subplots(), save_to=path)
    with Image.open(path) as picture:
        picture.load()


@pytest.mark.parametrize(("name", "message"), [("a", "suffix such as .png"), ("a.xyz", "xyz")])
def test_save_to_needs_a_format(instances, tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        visualize.display_instances(*instances, save_to=tmp_path / name, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_every_figure_can_be_saved(instances, tmp_path):
    image, boxes, masks, class_ids, _ = instances
    scores, overlaps = np.array([0.9, 0.8]), np.array([[0.7, 0.0], [0.1, 0.6]])
    small = np.ones((2, 28, 28))
    calls = {
        "display_images": ([image],),
        "display_differences": (image, boxes, class_ids, masks, boxes, class_ids, scores, masks)
        + (NAMES,),
        "draw_rois": (image, boxes, boxes, small, class_ids, NAMES),
        "draw_boxes": (image, boxes),
        "display_top_masks": (image, masks, class_ids, NAMES),
        "plot_precision_recall": (0.5, [1, 0], [0, 1]),
        "plot_overlaps": (class_ids, class_ids, scores, overlaps, NAMES),
        "plot_confusion_matrix": (np.eye(3, dtype=int), NAMES),
    }
    for name, arguments in calls.items():
        path = tmp_path / f"{name}.png"
        getattr(visualize, name)(*arguments, save_to=path)
        with Image.open(path) as picture:
            picture.load()
    assert plt.get_fignums() == []


# ---- display_differences ---------------------------------------------------------------------


def test_differences_match_predictions_whatever_their_order(instances):
    image, boxes, masks, class_ids, _ = instances
    # Padding, then the instances: the doubtful one first, and of the better one the lower half.
    found = np.zeros((30, 40, 3), bool)
    found[..., 1] = masks[..., 1]
    found[5:10, :8, 2] = True
    axes = visualize.display_differences(
        image,
        boxes,
        class_ids,
        masks,
        extract_bboxes(found),
        np.array([0, 2, 1]),
        np.array([0.0, 0.6, 0.9]),
        found,
        NAMES,
    )
    assert texts(axes) == ["0.90 / 0.50", "0.60 / 1.00"]
    outlines = [to_rgb(patch.get_edgecolor()) for patch in of_type(axes, Polygon)]
    truth, prediction = outlines[0], outlines[-1]
    assert outlines == [truth, truth, prediction, prediction]
    assert np.argmax(truth) == 1 and np.argmax(prediction) == 0


def test_differences_without_ground_truth_or_without_predictions(instances):
    image, boxes, masks, class_ids, _ = instances
    nothing = np.zeros((0, 4), int), np.zeros(0, int), np.zeros(0), masks[..., :0]
    axes = visualize.display_differences(
        image, nothing[0], nothing[1], nothing[3], boxes, class_ids, np.ones(2), masks, NAMES
    )
    assert texts(axes) == ["1.00 / 0.00", "1.00 / 0.00"]
    axes = visualize.display_differences(image, boxes, class_ids, masks, *nothing, NAMES)
    assert texts(axes) == []
    assert len(of_type(axes, Polygon)) == 2


def test_differences_of_lists(instances):
    image, boxes, masks, class_ids, _ = instances
    given = boxes.tolist(), class_ids.tolist()
    axes = visualize.display_differences(image, *given, masks, *given, [0.9, 0.8], masks, NAMES)
    assert texts(axes) == ["0.90 / 1.00", "0.80 / 1.00"]


def test_differences_of_other_numbers_are_an_error(instances):
    image, boxes, masks, class_ids, _ = instances
    with pytest.raises(ValueError, match="2 pred_box but 1 pred_score"):
        visualize.display_differences(
            image, boxes, class_ids, masks, boxes, class_ids, np.ones(1), masks, NAMES
        )


# ---- several images --------------------------------------------------------------------------


def test_images_are_laid_out_in_rows():
    axes = visualize.display_images([np.zeros((4, 5, 3), np.uint8)] * 7, list("abcdefg"))
    assert [axis.get_title() for axis in axes] == list("abcdefg")
    assert axes[0].get_gridspec().get_geometry() == (2, 4)
    assert not any(axis.axison for axis in axes[0].figure.axes)


def test_values_of_one_channel_are_coloured_as_they_are():
    activations = np.array([[-1.5, 0.25], [300.0, 0.0]])
    mask = np.array([[True, False]])
    first, second = visualize.display_images([activations, mask[..., np.newaxis]], cmap="Blues")
    np.testing.assert_array_equal(shown(first), activations)
    np.testing.assert_array_equal(shown(second), mask)
    assert first.images[0].get_cmap().name == "Blues"


def test_no_image_makes_an_empty_figure():
    assert visualize.display_images([]) == []
    with pytest.raises(ValueError, match="`cols` must be at least 1; received 0"):
        visualize.display_images([np.zeros((4, 4, 3), np.uint8)], cols=0)
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("titles", [["a"], ["a", "", "c"], np.array(["a"])])
def test_titles_of_another_number_than_images(titles):
    """Notebooks show some of the images with the titles of all."""
    axes = visualize.display_images([np.zeros((4, 4, 3), np.uint8)] * 2, titles=titles)
    assert [axis.get_title() for axis in axes] == ["a", ""]


def test_top_masks_are_those_of_the_classes_that_cover_most():
    masks = np.zeros((6, 6, 4), bool)
    masks[0, :2, 0] = masks[5, :2, 2] = True  # class 1, 4 pixels
    masks[2:4, :, 1] = True  # class 2, 12 pixels; class 3 is empty
    names = ["BG", "some", "most", "none"]
    image = np.zeros((6, 6, 3), np.uint8)
    panels = visualize.display_top_masks(image, masks, np.array([1, 2, 1, 3]), names)
    assert [axis.get_title() for axis in panels] == ["H x W=6x6", "most", "some"]
    # Instances of a class are told apart.
    np.testing.assert_array_equal(shown(panels[2]), masks[:, :, 0] + 2 * masks[:, :, 2])
    panels = visualize.display_top_masks(image, masks, np.array([1, 2, 1, 3]), names, limit=1)
    assert [axis.get_title() for axis in panels] == ["H x W=6x6", "most"]


# ---- plots and tables ------------------------------------------------------------------------


def test_precision_is_drawn_over_recall():
    axes = visualize.plot_precision_recall(0.75, [1.0, 0.5], [0.0, 1.0])
    assert axes.lines[0].get_xydata().tolist() == [[0.0, 1.0], [1.0, 0.5]]
    assert "AP@50 = 0.750" in axes.get_title()


def test_overlaps_say_what_matches():
    overlaps = np.array([[0.8, 0.0], [0.3, 0.6]])
    axes = visualize.plot_overlaps(
        np.array([1, 2, 0]), np.array([1, 1, 0, 0]), np.array([0.9, 0.7]), overlaps, NAMES
    )
    assert texts(axes) == ["0.800\nmatch", "0.000\n", "0.300\n", "0.600\nwrong"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["red", "green"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["red (0.90)", "red (0.70)"]


def test_overlaps_with_nothing():
    axes = visualize.plot_overlaps(
        np.zeros(0, int), np.array([1]), np.array([0.9]), np.zeros((1, 0)), NAMES
    )
    assert texts(axes) == []


@pytest.mark.parametrize(
    ("truths", "found", "scores", "message"),
    [
        ([1, 2], [1], [0.9], "2 rows of overlaps but 1 pred_class_ids"),
        ([1], [1, 2], [0.9, 0.8], "2 columns of overlaps but 1 gt_class_ids"),
        ([1, 2], [1, 2], [0.9], "2 rows of overlaps but 1 pred_scores"),
    ],
)
def test_overlaps_that_do_not_fit_are_an_error(truths, found, scores, message):
    with pytest.raises(ValueError, match=message):
        visualize.plot_overlaps(
            np.array(truths), np.array(found), np.array(scores), np.zeros((2, 2)), NAMES
        )


def test_confusion_has_a_count_for_each_pair_of_classes():
    counts = np.array([[0, 2, 0], [1, 1200, 0], [0, 3, 1]])
    axes = visualize.plot_confusion_matrix(counts, NAMES)
    assert texts(axes) == ["2", "1", "1,200", "3", "1"]
    assert [text.get_position() for text in axes.texts][:2] == [(1, 0), (0, 1)]
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array()[2], [0, 0.75, 0.25])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["not found", "red", "green"]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["nothing (2)", "red (1,201)", "green (4)"]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3), r"\[classes, classes\]; received \(2, 3\)"),
        ((2, 2), "2 rows of counts but 3 class"),
    ],
)
def test_confusion_that_does_not_fit_is_an_error(shape, message):
    with pytest.raises(ValueError, match=message):
        visualize.plot_confusion_matrix(np.zeros(shape, int), NAMES)


def test_augmentation_is_shown_with_masks_that_moved(rectangles, tiny_config, tmp_path):
    def quarter_turn(image, masks, rng):
        return np.rot90(image), np.rot90(masks)

    axes = visualize.display_augmented(
        rectangles(), tiny_config(), 1, quarter_turn, count=2, save_to=tmp_path / "a.png"
    )
    plain, *turned = (shown(each) for each in axes)
    assert [each.get_title() for each in axes] == ["as it is", "seed 0", "seed 1"]
    for picture in turned:
        assert (picture != plain).any()
        np.testing.assert_allclose(np.rot90(plain).mean((0, 1)), picture.mean((0, 1)), atol=1)
    assert (tmp_path / "a.png").stat().st_size


def test_a_table_is_printed_in_columns(capsys):
    visualize.display_table([["NAME", "SHAPE"], ("kernel", (3, 3)), ["a"]])
    assert capsys.readouterr().out == "NAME    SHAPE\nkernel  (3, 3)\na\n"


def test_a_table_is_html_in_jupyter(capsys, monkeypatch):
    displayed = []
    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    display = SimpleNamespace(HTML=str, display=displayed.append)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    visualize.display_table([["a", "<b>"], [1, 2]])
    expected = "<table><tr><td>a</td><td>&lt;b&gt;</td></tr><tr><td>1</td><td>2</td></tr></table>"
    assert displayed == [expected]
    assert capsys.readouterr().out == ""


def test_a_table_is_printed_in_a_terminal_with_ipython(capsys, monkeypatch):
    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    visualize.display_table([["a"]])
    assert capsys.readouterr().out == "a\n"


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_weights_are_described_whatever_their_nesting(capsys):
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="inside")])
    layers = [keras.layers.Dense(2, name=name) for name in ("plain", "dead", "large", "broken")]
    network = keras.Sequential(
        [keras.Input((2,)), *layers, inner, keras.layers.BatchNormalization(name="frozen")]
    )
    bias = np.zeros(2)
    values = {"plain": 0.5, "dead": 0.25, "large": -2000, "broken": np.inf, "inside": 1}
    for layer in (*layers, inner.layers[0]):
        kernel = np.full((2, 2), values[layer.name], np.float32)
        if layer.name != "dead":
            kernel[0, 0] = -0.5
        layer.set_weights([kernel, bias])
    visualize.display_weight_stats(SimpleNamespace(keras_model=network))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["WEIGHT", "NAME", "SHAPE", "MIN", "MAX", "STD"]
    assert len(lines) == 1 + 14
    assert lines[1].split() == ["plain/kernel", "(2,", "2)", "-0.5000", "+0.5000", "+0.4330"]
    alerts = {line.split()[0]: line.partition("***")[2][:12].strip() for line in lines[1:]}
    assert {name: alert for name, alert in alerts.items() if alert} == {
        "dead/kernel": "dead?",
        "large/kernel": "overflow?",
        "broken/kernel": "not finite",
        "frozen/gamma": "dead?",
        "frozen/beta": "dead?",
    }
    assert "inside/bias" in alerts
