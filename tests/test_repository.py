"""What stands around the code: workflows, templates, hooks, the image and the locked requirements."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [
    classifier.rpartition(" ")[2]
    for classifier in PROJECT["classifiers"]
    if re.search(r"Python :: 3\.\d+$", classifier)
]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs(path: Path) -> dict[str, dict]:
    return yaml.safe_load(path.read_text())["jobs"]


def steps(path: Path) -> Iterator[dict]:
    for job in jobs(path).values():
        yield from job.get("steps", [])  # none where it calls another workflow


def needs(job: dict) -> list[str]:
    named = job.get("needs", [])
    return [named] if isinstance(named, str) else named


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_there_are_workflows_for_tests_docs_and_the_wheel():
    assert [path.stem for path in WORKFLOWS] == ["docs", "tests", "wheel"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_ends_by_itself(path: Path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        if "uses" in job:  # another workflow of ours, whose jobs are checked as its own
            called = ROOT / job["uses"]
            assert called in WORKFLOWS, name
            assert "workflow_call" in yaml.safe_load(called.read_text())[True], (
                name
            )  # YAML reads "on" as true
        else:
            assert job["timeout-minutes"] <= 300, name
        granted = {key for key, value in job.get("permissions", {}).items() if value == "write"}
        assert granted <= {"id-token", "pages"}, name
        assert not granted or "if" in job, name  # never for a pull request
        assert set(needs(job)) <= set(workflow["jobs"]), name
    for step in steps(path):
        assert set(step) & {"run", "uses"}
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|[0-9a-f]{40}|release/v\d+)", step.get("uses", "a/b@v1"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_targets_that_the_makefile_has(path: Path):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    called = [
        target for step in steps(path) for target in re.findall(r"\bmake ([a-z]+)", step.get("run", ""))
    ]
    assert set(called) <= targets
    assert called or path.stem == "wheel"


def test_workflows_run_on_the_pythons_that_the_package_names():
    tested = jobs(ROOT / ".github/workflows/tests.yml")["fast"]["strategy"]["matrix"]["python-version"]
    installed = jobs(ROOT / ".github/workflows/wheel.yml")["install"]["strategy"]["matrix"]["python-version"]
    assert tested == installed == PYTHONS
    for path in WORKFLOWS:
        for step in steps(path):
            version = step.get("with", {}).get("python-version")
            assert version in (None, "${{ matrix.python-version }}", *PYTHONS), path.name


def test_only_a_tag_publishes():
    publishing = [
        (path.stem, name)
        for path in WORKFLOWS
        for name, job in jobs(path).items()
        if any("pypi-publish" in step.get("uses", "") for step in job.get("steps", []))
    ]
    assert publishing == [("wheel", "publish")]
    job = jobs(ROOT / ".github/workflows/wheel.yml")["publish"]
    assert job["if"] == "startsWith(github.ref, 'refs/tags/v')"


def test_every_test_passes_before_a_tag_publishes():
    wheel = jobs(ROOT / ".github/workflows/wheel.yml")
    assert wheel["publish"]["needs"] == ["install", "tests"]
    assert wheel["tests"] == {"if": wheel["publish"]["if"], "uses": "./.github/workflows/tests.yml"}
    every = jobs(ROOT / ".github/workflows/tests.yml")["all"]
    assert every["if"] == "github.event_name != 'pull_request'"  # a tag's event is a push
    assert every["steps"][-1]["run"].startswith("make test ")


def test_packages_of_one_index_alone_are_installed_without_their_dependencies():
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if "--index-url" in line]
    assert "--no-deps" in line.split()


def test_dependabot_watches_what_it_can_read():
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    assert [update["package-ecosystem"] for update in updates] == ["github-actions"]
    images = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert all("$" in image or image == "installed" for image in images)  # no tag that it could raise


def test_the_lock_is_written_by_one_version_in_an_environment_of_its_own():
    text = (ROOT / "Makefile").read_text()
    assert re.search(r"^UV := uv==\d+\.\d+\.\d+$", text, flags=re.MULTILINE)
    recipe = re.search(r"^lock:(.*\n(?:\t.*\n)+)", text, flags=re.MULTILINE)[1]
    assert "$(UV)\n" in recipe
    assert "$(BIN)" not in recipe
    assert recipe.endswith("\trm -rf $(LOCKING)\n")


@pytest.mark.parametrize("extra", ["docs", "dev"])
def test_what_tests_and_the_site_import_is_named(extra: str):
    imported = {"docs": {"docutils", "sphinx"}, "dev": {"beautifulsoup4", "nbclient", "nbformat", "pexpect"}}
    named = {re.split(r"[<>=\[]", one)[0] for one in PROJECT["optional-dependencies"][extra]}
    assert imported[extra] <= named


def test_the_developers_have_one_name():
    (author,) = (one["name"] for one in PROJECT["authors"])
    (cited,) = yaml.safe_load((ROOT / "CITATION.cff").read_text())["authors"]
    site = re.findall(
        r'^(?:author|copyright) = "(.*?)["\.]', (ROOT / "docs/conf.py").read_text(), flags=re.MULTILINE
    )
    assert [cited["name"], *site] == [author] * 3


@pytest.mark.parametrize("name", ["bug", "feature", "number"])
def test_an_issue_template_has_what_github_asks_for(name: str):
    form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text())
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)
    pages = re.findall(r"\b(docs/[\w/]+\.md|[A-Z_]+\.md)\b", str(form))
    assert all((ROOT / page).exists() for page in pages)


def test_a_bug_report_asks_for_the_version_and_the_provenance():
    text = (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text()
    assert "`cxrlab --version`" in text
    assert "provenance.json" in text


def hooks() -> dict[str, dict]:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"  # so that nothing is downloaded
    return {hook["id"]: hook for hook in repo["hooks"]}


def test_the_hooks_keep_images_and_weights_out_and_let_pictures_of_pages_in():
    images = hooks()["images"]
    for name in ("a.png", "tests/x.JPG", "scan.dcm", "outputs/best.ckpt", "model.safetensors", "docs/x.ckpt"):
        assert re.search(images["files"], name), name
        assert not re.search(images["exclude"], name), name
    assert re.search(images["exclude"], "docs/pictures/report.png")
    assert not re.search(images["files"], "src/cxrlab/train.py")


@pytest.mark.parametrize(
    ("text", "is_found"), [("a\n", False), ("a", True), ("a\n\n", True), ("a\n\nb\n", False)]
)
def test_the_hook_finds_a_file_that_does_not_end_with_one_newline(text: str, is_found: bool):
    assert (re.search(hooks()["end-of-file"]["entry"], text, flags=re.MULTILINE) is not None) is is_found


def test_what_the_image_copies_is_there_and_not_ignored():
    text = (ROOT / "Dockerfile").read_text()
    copies = [line.split()[1:-1] for line in re.findall(r"^COPY (?!--from).*", text, flags=re.MULTILINE)]
    sources = {source.removeprefix("./") for line in copies for source in line}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sources == kept
    assert all((ROOT / source).exists() for source in sources)
    read_by_the_build = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "src", "conf"}
    assert read_by_the_build <= sources


def test_the_image_is_run_by_a_person_without_rights_and_is_for_the_cpu_unless_asked():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "USER cxrlab" in lines
    assert 'ENTRYPOINT ["cxrlab"]' in lines
    stages = [line for line in lines if line.startswith("FROM ")]
    assert [stage.rpartition(" AS ")[2] for stage in stages] == ["build", "installed", "cuda", "cpu"]
    (version,) = re.findall(r"^ARG PYTHON_VERSION=(.*)$", "\n".join(lines), flags=re.MULTILINE)
    assert version in PYTHONS
    assert "--constraint /tmp/constraints.txt" in "\n".join(lines)


def locked() -> dict[str, tuple[str, list[str]]]:
    """Return (version, hashes) of each package of requirements.lock."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    packages = {}
    for line in filter(None, lines):
        requirement, *hashes = line.split("--hash=")
        name, _, version = requirement.partition(";")[0].strip().partition("==")
        assert name not in packages
        packages[normalized(name)] = (version, [digest.strip() for digest in hashes])
    return packages


NOT_CONSTRAINED = {
    "colorama": "it is for Windows alone; constraints.txt was written on Linux",
    "setuptools": "it builds two packages that exist as source only; pip freeze, which wrote constraints.txt, omits it",
}
"""Locked packages whose version no constraint gives, and why: uv chose it, and only its hashes are checked."""


def test_every_locked_package_has_hashes_and_the_version_of_the_constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    versions = {normalized(name): version for name, version in pinned.items()}
    packages = locked()
    assert set(packages) - set(versions) == set(NOT_CONSTRAINED)
    for name, (version, hashes) in packages.items():
        assert version == versions[name] if name in versions else re.fullmatch(r"[\d.]+", version), name
        assert hashes, name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), name


def test_what_the_package_needs_is_locked():
    extras = PROJECT["optional-dependencies"]
    needed = [*PROJECT["dependencies"], *extras["dicom"], *extras["explain"]]
    assert {normalized(re.split(r"[<>=!~ ;\[]", requirement)[0]) for requirement in needed} <= set(locked())


def test_the_lock_holds_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert not re.search(
        r"^\s*(-i|-f|--(extra-)?index-url|--find-links|--trusted-host)\b", text, flags=re.MULTILINE
    )
    assert " @ " not in text
