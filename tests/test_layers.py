"""Imports point one way: down this list. It is complete, so it is also the order to read in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    "server.__main__",
    "server.cli",
    "server.translate_command",
    "server.flags",
    "server.models_table",
    "server.file_translation",
    "server.progress",
    "server.journal",
    "server.files",
    "server.glossary_file",
    "server.batch",
    "server.process",
    "server.guard",
    "server.app",
    "server.routes.libretranslate",
    "server.routes.libretranslate_spec",
    "server.routes.tgi",
    "server.routes.generate",
    "server.routes.openai",
    "server.routes.openai_fields",
    "server.routes.deepl",
    "server.routes.deepl_fields",
    "server.routes.translate",
    "server.routes.translate_fields",
    "server.routes.health",
    "server.routes.shared",
    "server.streaming",
    "server.access",
    "server.problems",
    "server.bodies",
    "server.routing",
    "server.serving",
    "server.file_store",
    "server.translator",
    "server.preparation",
    "server.reading",
    "server.results",
    "server.reader",
    "server.text.documents",
    "server.text.html_pieces",
    "server.text.cues",
    "server.text.passages",
    "server.text.cutting",
    "server.text.projection",
    "server.text.placing",
    "server.text.alignment",
    "server.text.masking",
    "server.text.markup",
    "server.text.elements",
    "server.text.markup_tokens",
    "server.text.segmentation",
    "server.text.boundaries",
    "server.text.markers",
    "server.text.protection",
    "server.text.nesting",
    "server.text.languages",
    "server.text.scripts",
    "server.text.placeholders",
    "server.text.terms",
    "server.text.pieces",
    "server.text.references",
    "server.text.rules",
    "server.text.segments",
    "server.decoding_fields",
    "server.engine",
    "server.runner",
    "server.isolation",
    "server.device_lock",
    "server.scheduler",
    "server.pacing",
    "server.messages",
    "server.generation",
    "server.auth",
    "server.metrics",
    "server.settings",
    "server.errors",
    "model.convert",
    "model",
    "model.hub",
    "model.hub_files",
    "model.families.marian",
    "model.tokenizer",
    "model.tokenizers.pipeline",
    "model.tokenizers.byt5",
    "model.tokenizers.m2m100",
    "model.tokenizers.marian",
    "model.tokenizers.prompts",
    "model.tokenizers.added",
    "model.tokenizers.contract",
    "model.tokenizers.assembly",
    "model.tokenizers.vocabulary",
    "model.tokenizers.sentencepiece_file",
    "model.tokenizers.settings",
    "model.tokenizers.codes",
    "model.languages",
    "model.detokenizer",
    "model.building",
    "model.families.bart",
    "model.families.m2m100",
    "model.families.marian",
    "model.families.mbart",
    "model.families.pegasus",
    "model.families.fairseq",
    "model.families.mt5",
    "model.families.t5",
    "model.generation_config",
    "model.checkpoint",
    "model.backends.cpu",
    "model.runner",
    "model.eager",
    "model.newcomers",
    "model.native.machine",
    "model.native.cache",
    "model.native.network",
    "model.native.library",
    "model.captured.machine",
    "model.captured.runs",
    "model.machine",
    "model.captured.staging",
    "model.captured.kinds",
    "model.captured.encoder",
    "model.captured.sources",
    "model.captured.steps",
    "model.captured.draw",
    "model.captured.beams",
    "model.captured.network",
    "model.captured.memory",
    "model.captured.weights",
    "model.captured.settings",
    "model.captured.chosen",
    "model.captured.fused",
    "model.captured.kernels",
    "model.captured.plain",
    "model.captured.operations",
    "model.captured.buckets",
    "model.captured.device",
    "model.captured.graph",
    "model.decoding.step",
    "model.decoding.picks",
    "model.decoding.choose",
    "model.decoding.filters",
    "model.decoding.target",
    "model.decoding.rows",
    "model.decoding.alternatives",
    "model.decoding.constrained",
    "model.decoding.phrases",
    "model.decoding.beam",
    "model.decoding.search",
    "model.decoding.options",
    "model.latent_cache",
    "model.kv_cache",
    "model.sources",
    "model.transformer",
    "model.layers",
    "model.positions",
    "model.config",
]
PACKAGES = {
    "server",
    "server.routes",
    "server.text",
    "model.backends",
    "model.captured",
    "model.decoding",
    "model.families",
    "model.native",
    "model.tokenizers",
}


def path_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(module: str) -> set[str]:
    """Return what a module imports of ours, the packages' own names left out."""
    found = set()
    for node in ast.walk(ast.parse(path_of(module).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name in LAYERS}


def test_every_module_has_a_layer() -> None:
    files = {*ROOT.glob("model/**/*.py"), *ROOT.glob("server/**/*.py")}
    assert files == {path_of(module) for module in [*LAYERS, *PACKAGES]}


@pytest.mark.parametrize("module", LAYERS)
def test_a_module_imports_only_lower_layers(module: str) -> None:
    assert imports(module) <= set(LAYERS[LAYERS.index(module) + 1 :])


@pytest.mark.parametrize("module", [m for m in LAYERS if m.startswith("server.")])
def test_the_server_uses_only_the_models_public_names(module: str) -> None:
    allowed = {"model.convert"} if module == "server.cli" else set()
    assert {name for name in imports(module) if name.startswith("model.")} <= allowed


@pytest.mark.parametrize("module", ["server.metrics", "server.settings", "server.errors"])
def test_leaves_import_nothing_of_ours(module: str) -> None:
    assert imports(module) == set()


def test_the_scheduler_needs_neither_torch_nor_asyncio() -> None:
    check = "import sys, server.scheduler; print(sorted({'torch', 'asyncio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr


def test_only_the_converter_can_unpickle_and_nothing_evaluates() -> None:
    converter = ROOT / "model/convert.py"
    for package in ("model", "server"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
                    is_error = path == converter and names == {"pickle", "UnpicklingError"}
                    assert is_error or not names & {"pickle", "marshal", "shelve"}, path
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    assert called not in {"eval", "exec"}, path
                    assert called != "torch.load" or path == converter, path
                    if called == "torch.load":
                        assert "weights_only=True" in ast.unparse(node)


def test_the_server_never_imports_the_converter_nor_the_hubs_client_before_it_is_asked() -> None:
    check = (
        "import sys, server.app, server.process, server.batch; "
        "print(sorted({'model.convert', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr


def test_devices_are_named_only_where_backends_are_chosen() -> None:
    allowed = {
        ROOT / "model/__init__.py",
        ROOT / "model/captured/device.py",
        ROOT / "server/settings.py",
        ROOT / "server/cli.py",  # an example in its help
    }
    for path in {*ROOT.glob("model/**/*.py"), *ROOT.glob("server/**/*.py")} - allowed:
        assert "cuda" not in path.read_text(), path


def test_a_model_is_captured_without_the_servers_packages_and_without_triton() -> None:
    check = """
import sys
sys.modules |= dict.fromkeys(["fastapi", "pydantic", "pydantic_settings", "uvicorn", "triton"])
from model import BUNDLED, Arrival, DecodingOptions, load
runner = load(BUNDLED, slots=2, precision="float32", captured=True).runner
runner.admit([Arrival((0,), (5, 6, 0), DecodingOptions(max_new_tokens=3))])
print(len(runner.launch([0], 3).result()))
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "1\n", done.stderr


def test_loading_a_model_imports_no_compiler_and_no_other_framework() -> None:
    check = (
        "import sys; from model import BUNDLED, load; load(BUNDLED); import server.app;"
        "print(sorted({'torch._dynamo', 'sympy', 'transformers', 'ctranslate2'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr
