// An edge node that is not ours: sparkplug-client, driven by lines of JSON on stdin, telling what it does on stdout.
//
//   node edge_node.js PORT GROUP NODE DEVICES     DEVICES: {"D1": [{"name", "alias", "type", "value"}, ...], ...}
//
// Orders: {"do": "data", "device", "values": {name: value}, "quality"?, "at"?, "historical"?}, {"do": "lose"} (one sequence
// number is used by nobody), {"do": "device_death", "device"}, {"do": "stop"}.
"use strict";

const readline = require("readline");
const { newClient } = require("sparkplug-client");

const [port, groupId, edgeNode, listed] = process.argv.slice(2);
const devices = JSON.parse(listed);

function say(event, facts) {
  process.stdout.write(JSON.stringify({ event, ...facts }) + "\n");
}

const client = newClient({
  serverUrl: `mqtt://127.0.0.1:${port}`,
  username: null, // nobody: an empty name is one to some brokers
  password: null,
  groupId,
  edgeNode,
  clientId: `${groupId}-${edgeNode}-foreign`,
  publishDeath: true,
});

function born(why) {
  const timestamp = Date.now();
  client.publishNodeBirth({
    timestamp,
    metrics: [{ name: "Node Control/Rebirth", type: "Boolean", value: false, timestamp }],
  });
  for (const [device, metrics] of Object.entries(devices)) {
    client.publishDeviceBirth(device, { timestamp, metrics: metrics.map((metric) => ({ ...metric, timestamp })) });
  }
  say("born", { why });
}

client.on("birth", () => born("connected"));
client.on("error", (error) => say("error", { message: String(error) }));
client.on("ncmd", (payload) => {
  for (const metric of payload.metrics) {
    say("command", { name: metric.name, type: metric.type, value: metric.value });
    if (metric.name === "Node Control/Rebirth" && metric.value === true) born("asked");
  }
});

const orders = {
  data({ device, values, quality, at, historical }) {
    const timestamp = at === undefined ? Date.now() : at;
    const metrics = Object.entries(values).map(([name, value]) => {
      const declared = devices[device].find((metric) => metric.name === name);
      if (!historical) declared.value = value;
      const metric = { alias: declared.alias, type: declared.type, value, timestamp };
      if (quality !== undefined) metric.properties = { Quality: { type: "Int32", value: quality } };
      if (historical) metric.isHistorical = true;
      return metric;
    });
    client.publishDeviceData(device, { timestamp: Date.now(), metrics });
  },
  lose() {
    client.incrementSeqNum();
  },
  device_death({ device }) {
    client.publishDeviceDeath(device, { timestamp: Date.now(), metrics: [] });
  },
  stop() {
    client.stop();
    process.stdin.destroy();
  },
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const order = JSON.parse(line);
  orders[order.do](order);
  say("did", { what: order.do });
});
