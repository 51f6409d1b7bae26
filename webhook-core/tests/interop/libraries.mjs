// Signs and verifies with the senders' own libraries, as the JSON on standard input says.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The packages are where the process runs, not where this file is.
const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const { sign, verify } = await import(pathToFileURL(`${process.cwd()}/node_modules/@octokit/webhooks-methods/dist-node/index.js`));
const { Webhook } = require("standardwebhooks");

async function answer(one) {
  if (one.scheme === "github") {
    if (one.do === "sign") return { "x-hub-signature-256": await sign(one.secret, one.body) };
    return verify(one.secret, one.body, one.headers["x-hub-signature-256"]);
  }
  const webhook = new Webhook(one.secret);
  if (one.do === "sign") {
    return {
      "webhook-id": one.id,
      "webhook-timestamp": String(one.timestamp),
      "webhook-signature": webhook.sign(one.id, new Date(one.timestamp * 1000), one.body),
    };
  }
  try {
    webhook.verify(one.body, one.headers);
    return true;
  } catch (error) {
    return error.constructor.name;
  }
}

const cases = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(await Promise.all(cases.map(answer))));
