// What somebody else reads in our messages: sparkplug-payload on everything that goes over the broker, as lines of JSON.
//
//   node decoder.js PORT
//
// The library gives no value to a metric without data type, and DATA messages have none; so the type that the births
// declared for the alias or the name is put in before the library decodes the whole.
"use strict";

const mqtt = require("mqtt");
const { org } = require("sparkplug-payload/lib/sparkplugPayloadProto");
const sparkplug = require("sparkplug-payload").get("spBv1.0");

const { Payload } = org.eclipse.tahu.protobuf;
const declared = new Map(); // "group/node" -> {alias or name: {name, datatype}}

function plain(key, value) {
  if (value !== null && typeof value === "object" && value.type === "Buffer") return { base64: Buffer.from(value.data).toString("base64") };
  return value;
}

function numbers(value) {
  if (value === null || value === undefined || typeof value !== "object") return value;
  if (typeof value.toNumber === "function") return value.toString(); // 64 bits do not fit JavaScript's numbers
  if (Buffer.isBuffer(value)) return value;
  if (Array.isArray(value)) return value.map(numbers);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, numbers(inner)]));
}

function decode(topic, bytes) {
  const [, group, kind, node] = topic.split("/");
  const place = `${group}/${node}`;
  if (kind === "NBIRTH") declared.set(place, {});
  const known = declared.get(place) || {};
  const raw = Payload.decode(bytes);
  const typed = raw.metrics.map((metric) => Object.prototype.hasOwnProperty.call(metric, "datatype"));
  const has = (metric, field) => Object.prototype.hasOwnProperty.call(metric, field);
  for (const metric of raw.metrics) {
    const keys = [has(metric, "alias") ? String(metric.alias) : null, has(metric, "name") ? `:${metric.name}` : null];
    if (kind === "NBIRTH" || kind === "DBIRTH") {
      for (const key of keys) if (key !== null) known[key] = { name: metric.name, datatype: metric.datatype };
    } else if (!has(metric, "datatype")) {
      const birth = known[keys[0]] || known[keys[1]];
      if (birth !== undefined) metric.datatype = birth.datatype;
    }
  }
  const payload = sparkplug.decodePayload(Payload.encode(raw).finish());
  payload.metrics = (payload.metrics || []).map((metric, at) => {
    const birth = known[has(metric, "alias") ? String(metric.alias) : `:${metric.name}`];
    return { ...metric, name: metric.name || (birth && birth.name), typed: typed[at] };
  });
  return payload;
}

const client = mqtt.connect(`mqtt://127.0.0.1:${process.argv[2]}`, { clientId: "somebody-elses-host", clean: true });
client.on("connect", () => {
  client.subscribe("spBv1.0/#", { qos: 1 }, () => process.stdout.write(JSON.stringify({ ready: true }) + "\n"));
});
client.on("message", (topic, bytes, packet) => {
  const line = { topic, qos: packet.qos, retain: packet.retain, received: Date.now() };
  try {
    line.payload = topic.startsWith("spBv1.0/STATE/") ? JSON.parse(bytes.toString("utf8")) : numbers(decode(topic, bytes));
  } catch (error) {
    line.error = String(error.stack);
  }
  process.stdout.write(JSON.stringify(line, plain) + "\n");
});
