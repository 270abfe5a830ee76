"""What editors read: the TextMate grammar, the schema of the YAML form, the extension, the Pygments lexer."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
from pygments.token import Comment, Error, Keyword, Name, Operator, String

from nldsl import lexer
from nldsl.diagnostics import DiagnosticBag, catalogue
from nldsl.source import SourceFile
from nldsl.syntax import parse, to_yaml
from tests.unit.npm import node_modules

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.nl"))
EXTENSION = ROOT / "editors" / "vscode"
SCHEMA = json.loads((ROOT / "grammars" / "nldsl.schema.json").read_text(encoding="utf-8"))
TEXTMATE = json.loads((ROOT / "grammars" / "nldsl.tmLanguage.json").read_text(encoding="utf-8"))

GOOD = {
    "the layer of the language": """
nldsl: 1
block gated_deltanet:
  takes: [x, "heads = 4", "window = 4"]
  levels:
    context: {every: 1 token, memories: {S: "matrix() per head init zero"}}
  body:
    - beta = sigmoid(linear(x, heads))
    - S *= alpha
    - write: S
      key: k
      value: v
      minimize: l2
      by: gd(lr = beta)
    - return linear(merge(norm(S[q])) * silu(linear(x)))
""",
    "short variant": """
nldsl: 1
variant big of hope:
  with: {dim: 512, depth: 12, heads: 8, chunks: [16, 64]}
  levels: {"cms.f[1]": every 1024 tokens}
  train: {matrices: muon(lr = 0.02), "*.conv.*": sgd(lr = 1), truncate: 256 tokens}
variant same of hope:
""",
    "everything else": """
nldsl: 1
use: [a.nl, b.nl]
train hope:
  task: next_token
  levels: {outer: {every: 1 step, groups: {"matrices, head": muon(lr = 1), rest: adamw(lr = 1)}}}
block f(x):
  memories: {A: softmax(window = 8)}
  body:
    - for: c, i in chunks
      body:
        - level: f
          every: c tokens
          memories: {F: mlp(4)}
    - repeat: 2
      body: ["x = x + F[x]"]
    - if: heads > 2
      body: [y = x]
      else: [y = 2 * x]
    - write: each of A, B
      terms:
        - {key: k, value: 0, by: gd(lr = a), over: 16 tokens, gradient: every 4 tokens, at: commit}
    - return y
""",
}
BAD = {
    "unknown key of a definition": "nldsl: 1\nblock f:\n  take: [x]\n  body: [return x]\n",
    "unknown item": "nldsl: 1\nblok f:\n  body: [return x]\n",
    "version": "nldsl: 2\nblock f:\n  body: [return 1]\n",
    "no clock": "nldsl: 1\nblock f:\n  levels: {c: {memories: {S: matrix()}}}\n  body: [return 1]\n",
    "clock without unit": "nldsl: 1\nblock f:\n  levels: {c: {every: 16}}\n  body: [return 1]\n",
    "unknown statement": "nldsl: 1\nblock f:\n  body:\n    - wride: S\n      key: k\n      value: v\n",
    "write without value": "nldsl: 1\nblock f:\n  body:\n    - write: S\n      key: k\n",
    "key beside terms": "nldsl: 1\nblock f:\n  body:\n"
    "    - {write: S, key: k, value: v, terms: [{key: k, value: v}]}\n",
    "unknown clause": "nldsl: 1\nblock f:\n  body:\n    - {write: S, key: k, value: v, minimise: l2}\n",
    "at what": "nldsl: 1\nblock f:\n  body:\n    - {write: S, key: k, value: v, at: once}\n",
    "over steps": "nldsl: 1\nblock f:\n  body:\n    - {write: S, key: k, value: v, over: 3 steps}\n",
    "definition is a list": "nldsl: 1\nblock f: [x]\n",
    "program is a list": "- nldsl: 1\n",
    "unknown part of a variant": "nldsl: 1\nvariant a of hope:\n  wiht: {dim: 3}\n",
    "level of a variant": "nldsl: 1\nvariant a of hope:\n  levels: {f: 16}\n",
    "repeat without count": "nldsl: 1\nblock f:\n  body:\n    - repeat:\n      body: [x = 1]\n",
}


def schema_errors(text: str) -> list[str]:
    validator = jsonschema.Draft7Validator(SCHEMA)
    return [error.message for error in validator.iter_errors(yaml.safe_load(text))]


def reader_codes(text: str) -> list[str]:
    bag = DiagnosticBag()
    parse(SourceFile("a.yaml", text), bag)
    return [d.code for d in bag.items]


# --- the schema and the reader agree ---------------------------------------------------------------


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_the_schema_takes_the_library(path: Path) -> None:
    text = to_yaml(parse(SourceFile(path.name, path.read_text(encoding="utf-8")), DiagnosticBag()))
    assert not reader_codes(text)
    assert not schema_errors(text)


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_the_schema_takes_what_the_reader_takes(text: str) -> None:
    assert not reader_codes(text)
    assert not schema_errors(text)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_the_schema_refuses_what_the_reader_refuses(text: str) -> None:
    assert reader_codes(text)
    assert schema_errors(text)


@pytest.mark.parametrize("code", [c for c, e in catalogue().items() if e.form == "yaml" and e.working])
def test_the_schema_takes_the_working_examples(code: str) -> None:
    assert not schema_errors(catalogue()[code].working)


# --- grammar and lexer -----------------------------------------------------------------------------


def patterns(node: Any) -> list[dict[str, Any]]:
    found = [node] if isinstance(node, dict) and "match" in node else []
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        found += patterns(child)
    return found


def test_the_grammar_has_the_words_of_the_lexer() -> None:
    text = " ".join(p["match"] for p in patterns(TEXTMATE))
    groups = (
        lexer.DEFINITIONS,
        lexer.STATEMENTS,
        lexer.CLAUSES,
        lexer.MODIFIERS,
        lexer.CONSTANTS,
        lexer.WORDS,
    )
    for words in groups:
        assert "|".join(words) in text


def test_the_words_are_those_of_the_language() -> None:
    lark = (ROOT / "grammars" / "nldsl.lark").read_text(encoding="utf-8")
    found = re.findall(r"^_?[A-Z]+\.2: /\(?([a-z|?]+)\)?\\b", lark, re.MULTILINE)
    words = {word for match in found for word in match.split("|")}
    plural = {word.removesuffix("?") for word in words if word.endswith("?")}
    known = {word.removesuffix("s?") for word in words} | plural
    groups = (
        lexer.DEFINITIONS,
        lexer.STATEMENTS,
        lexer.CLAUSES,
        lexer.MODIFIERS,
        lexer.WORDS,
        ("use", "nldsl"),
    )
    assert known == {w for group in groups for w in group}


def test_grammar_patterns_match() -> None:
    for pattern in patterns(TEXTMATE):
        re.compile(pattern["match"])
    includes = set(re.findall(r'"include": "#(\w+)"', json.dumps(TEXTMATE)))
    assert includes <= TEXTMATE["repository"].keys()


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_the_lexer_knows_every_sign(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tokens = list(get_lexer_for_filename("a.nl").get_tokens(text))
    assert "".join(value for _, value in tokens) == text
    assert not [value for kind, value in tokens if kind is Error]


def test_the_lexer_tells_words_apart() -> None:
    text = 'block f(x) {  # one\n  S[k] <- head(x, "a")  by gd(lr = 1)\n}\n'
    kinds = {value: kind for kind, value in get_lexer_by_name("nldsl").get_tokens(text)}
    assert kinds["block"] is Keyword.Declaration and kinds["f"] is Name.Class
    assert kinds["by"] is Keyword and kinds["gd"] is Name.Function
    assert kinds["<-"] is Operator and kinds["# one"] is Comment.Single and kinds['"a"'] is String.Double


# --- the extension ---------------------------------------------------------------------------------


def test_the_extension_is_whole() -> None:
    package = json.loads((EXTENSION / "package.json").read_text(encoding="utf-8"))
    contributed = package["contributes"]
    files = [
        package["main"],
        contributed["languages"][0]["configuration"],
        contributed["grammars"][0]["path"],
        *(each["url"] for each in contributed["yamlValidation"]),
    ]
    assert all((EXTENSION / name).is_file() for name in [*files, "README.md", "LICENSE"])
    assert contributed["grammars"][0]["scopeName"] == TEXTMATE["scopeName"]
    assert json.loads((EXTENSION / files[1]).read_text(encoding="utf-8"))["comments"] == {"lineComment": "#"}
    commands = {c["command"] for c in contributed["commands"]}
    settings = contributed["configuration"]["properties"]
    script = (EXTENSION / package["main"]).read_text(encoding="utf-8")
    assert all(f'"{name}"' in script for name in commands)
    assert "nldsl.server.command" in settings and 'get("server.command")' in script
    for name in re.findall(r'require\("([^"]+)"\)', script):
        assert name == "vscode" or name.split("/")[0] in package["dependencies"]


def test_the_extension_has_grammar_and_schema_of_the_package() -> None:
    for copy, kept in (("syntaxes/nldsl.tmLanguage.json", TEXTMATE), ("nldsl.schema.json", SCHEMA)):
        assert json.loads((EXTENSION / copy).read_text(encoding="utf-8")) == kept


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not here")
def test_the_script_of_the_extension_starts_and_stops_the_server(tmp_path: Path) -> None:
    """With stand-ins for the editor and the client library: what is started, and that it ends."""
    script = tmp_path / "run.js"
    script.write_text(_EDITOR.replace("EXTENSION", (EXTENSION / "extension.js").as_posix()), encoding="utf-8")
    done = subprocess.run(["node", str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        ["command", "nldsl.restart"],
        ["start", "nldsl", ["server"], ["nldsl", "yaml"]],
        ["stop"],
        ["start", "nldsl", ["server"], ["nldsl", "yaml"]],
        ["stop"],
    ]


_EDITOR = """
const Module = require("module");
const said = [];
const commands = {};
class LanguageClient {
  constructor(id, name, server, options) { this.server = server; this.options = options; }
  async start() {
    const { command, args } = this.server;
    said.push(["start", command, args, this.options.documentSelector.map((d) => d.language)]);
  }
  needsStop() { return true; }
  async stop() { said.push(["stop"]); }
}
const vscode = {
  workspace: { getConfiguration: () => ({ get: () => undefined }) },
  window: { showErrorMessage: (words) => { throw new Error(words); } },
  commands: {
    registerCommand: (name, run) => { said.push(["command", name]); commands[name] = run; return {}; },
  },
};
const load = Module._load;
const instead = { vscode, "vscode-languageclient/node": { LanguageClient } };
Module._load = (name, ...rest) => instead[name] ?? load(name, ...rest);
(async () => {
  const extension = require("EXTENSION");
  await extension.activate({ subscriptions: [] });
  await commands["nldsl.restart"]();
  await extension.deactivate();
  console.log(JSON.stringify(said));
})();
"""


@pytest.mark.long
def test_the_extension_packages(tmp_path: Path) -> None:
    copy = tmp_path / "vscode"
    shutil.copytree(EXTENSION, copy, ignore=shutil.ignore_patterns("node_modules", "*.vsix"))
    modules = node_modules(copy)
    offline = os.environ | {"npm_config_offline": "true", "HTTPS_PROXY": "http://127.0.0.1:9", "CI": "1"}
    done = subprocess.run(
        [str(modules / ".bin" / "vsce"), "package"],
        cwd=copy,
        env=offline,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(copy.glob("*.vsix"))


@pytest.mark.long
def test_yaml_language_server_agrees(tmp_path: Path) -> None:
    """A real server with our schema finds the bad examples bad and the good ones good."""
    modules = node_modules(tmp_path, "yaml-language-server")
    script = tmp_path / "ask.js"
    script.write_text(_ASK.replace("MODULES", modules.as_posix()), encoding="utf-8")
    cases = {f"good {name}": text for name, text in GOOD.items()} | {f"bad {n}": t for n, t in BAD.items()}
    question = json.dumps({"schema": (ROOT / "grammars" / "nldsl.schema.json").as_uri(), "cases": cases})
    done = subprocess.run(
        ["node", str(script)], input=question, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    wrong = {n: found for n, found in answers.items() if bool(found) != n.startswith("bad ")}
    assert not wrong


_ASK = """
const { spawn } = require("child_process");
const rpc = require("MODULES/vscode-languageserver-protocol/node");
const server = spawn("node", ["MODULES/yaml-language-server/bin/yaml-language-server", "--stdio"]);
const connection = rpc.createProtocolConnection(
  new rpc.StreamMessageReader(server.stdout), new rpc.StreamMessageWriter(server.stdin));
const { schema, cases } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const yaml = { schemas: { [schema]: ["*.yaml"] }, schemaStore: { enable: false }, validate: true };
const settings = { yaml };
connection.onRequest("workspace/configuration", (p) => p.items.map((i) => settings[i.section] ?? {}));
connection.onRequest("client/registerCapability", () => null);
const answers = {}, uris = {};
connection.onNotification("textDocument/publishDiagnostics", (p) => {
  const name = uris[p.uri];
  if (name === undefined) return;
  answers[name] = p.diagnostics.map((d) => d.message);
});
connection.listen();
(async () => {
  await connection.sendRequest("initialize", {
    processId: process.pid, rootUri: null,
    capabilities: { workspace: { configuration: true } } });
  await connection.sendNotification("initialized", {});
  await connection.sendNotification("workspace/didChangeConfiguration", { settings });
  await new Promise((done) => setTimeout(done, 1000));
  Object.entries(cases).forEach(([name, text], index) => {
    const uri = `file:///case${index}.yaml`;
    uris[uri] = name;
    connection.sendNotification("textDocument/didOpen", {
      textDocument: { uri, languageId: "yaml", version: 1, text } });
  });
  for (let wait = 0; wait < 200 && Object.keys(answers).length < Object.keys(cases).length; wait++) {
    await new Promise((done) => setTimeout(done, 100));
  }
  await new Promise((done) => setTimeout(done, 1500));
  process.stdout.write(JSON.stringify(answers), () => { server.kill(); process.exit(0); });
})();
"""
