// Starts `nldsl server` and connects it to the editor.  Plain JavaScript: there is no build step.
"use strict";

const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

function serverOptions() {
  const command = vscode.workspace.getConfiguration("nldsl").get("server.command");
  const [program, ...args] = Array.isArray(command) && command.length ? command : ["nldsl", "server"];
  return { command: program, args };
}

async function start() {
  const clientOptions = {
    documentSelector: [
      { language: "nldsl" },
      { language: "yaml", pattern: "**/*.nl.{yaml,yml}" },
    ],
  };
  client = new LanguageClient("nldsl", "nldsl", serverOptions(), clientOptions);
  try {
    await client.start();
  } catch (error) {
    const advice = "install it with `pip install 'nldsl[server]'`, or set `nldsl.server.command`";
    vscode.window.showErrorMessage(`nldsl: the language server does not start (${error.message}); ${advice}`);
  }
}

async function stop() {
  const running = client;
  client = undefined;
  if (running && running.needsStop()) {
    await running.stop();
  }
}

async function activate(context) {
  const restart = vscode.commands.registerCommand("nldsl.restart", async () => {
    await stop();
    await start();
  });
  context.subscriptions.push(restart);
  await start();
}

module.exports = { activate, deactivate: stop };
