"""Read the models, measure their samples alike, compare them, test what is said of them, draw, and write the page."""

from __future__ import annotations

from pipeline.contract import Context
from stages.common.images.grid import load_split
from stages.common.images.parts import doing
from stages.image.compare import report
from stages.image.compare.config import Config
from stages.image.compare.course import all_claims
from stages.image.compare.metrics import write_metrics
from stages.image.compare.models import load_contestants
from stages.image.compare.modes import load_judge, write_modes
from stages.image.compare.page import write_page
from stages.image.compare.pictures import draw_charts, draw_sheets
from stages.image.compare.scores import measure


@doing("measuring the models' samples", "set num_samples of their stages lower, or max_images of the images")
def run(config: Config, context: Context) -> None:
    """Write tables, figures, `table.csv`, `comparison.json`, `explorer.html`, card and section.

    Raises:
        DataError: models that may not be compared, or too few images or samples to measure.
    """
    images = context.input("images")
    contestants = load_contestants(images, context.input("extractors"), context.inputs("models"))
    judge = load_judge(images, context.inputs("judge"))
    study = measure(config, context, contestants, judge)
    claims = all_claims(study) if len(study.families()) > 1 else []
    train, real = load_split(images, "train").images, load_split(images, config.split).images
    report.open_section(context, study)
    draw_sheets(config, context, study, train, real)
    draw_charts(context, study)
    report.write_claims(context, claims)
    write_modes(context, study, judge)
    pairs = report.write_tables(context, study)
    report.write_published(context, study.grid.name, config.published)
    write_metrics(context, study, claims)
    report.write_files(context, study, pairs, claims)
    report.write_card(context, study, claims)
    write_page(context.directory, study, real, config.page_images, about=report.how_to_read(study))
    context.section.text(
        "explorer.html, in this stage's folder beside the report, shows samples side by side and walks through latent spaces."
    )
