// A plugin schema with each kind of field, as aiostream_ds._grafana.forms writes it.
import type { PluginSchema } from "../src/forms/pluginSchema";

export const KINDS: PluginSchema = {
  version: 1,
  sourceSetting: null,
  sources: [
    {
      name: "",
      help: "Messages of a broker.",
      settings: {
        type: "object",
        properties: {
          keepAlive: {
            type: "integer",
            minimum: 1,
            maximum: 600,
            default: 60,
            description: "Seconds between two pings.",
          },
          url: { type: "string", examples: ["mqtt://broker"], pattern: "^mqtts?://" },
          verify: { type: "boolean", default: true },
          qos: { enum: ["at most once", "at least once"], default: "at least once" },
          compression: { $ref: "#/$defs/Compression", default: "none" },
          topics: { type: "array", items: { type: "string" }, default: ["sensors/#"] },
          clientId: { anyOf: [{ type: "string" }, { type: "null" }], default: null },
          wait: { anyOf: [{ type: "number" }, { type: "null" }], default: 5 },
          maybe: { anyOf: [{ type: "boolean" }, { type: "null" }], default: null },
          port: { anyOf: [{ type: "integer" }, { type: "string" }] },
          labels: { type: "object", additionalProperties: { type: "string" }, default: {} },
          login: {
            anyOf: [{ $ref: "#/$defs/Password" }, { $ref: "#/$defs/Anonymous" }],
            discriminator: {
              propertyName: "method",
              mapping: { password: "#/$defs/Password", anonymous: "#/$defs/Anonymous" },
            },
            default: { method: "anonymous" },
          },
          password: { type: "string", format: "password", writeOnly: true },
          retries: { $ref: "#/$defs/Retries", default: { times: 3 } },
          proxy: { anyOf: [{ $ref: "#/$defs/Proxy" }, { type: "null" }], default: null },
          renamed: { type: "array", items: { $ref: "#/$defs/Proxy" }, maxItems: 1 },
          tree: { $ref: "#/$defs/Node", default: {} },
          pair: { type: "array", prefixItems: [{ type: "integer" }, { type: "integer" }], items: false },
        },
        required: ["url"],
        $defs: {
          Compression: { title: "Compression", enum: ["none", "gzip"] },
          Password: {
            type: "object",
            description: "A name and a password.",
            properties: { method: { enum: ["password"] }, user: { type: "string" } },
            required: ["method", "user"],
          },
          Anonymous: {
            type: "object",
            properties: { method: { enum: ["anonymous"] } },
            required: ["method"],
          },
          Retries: {
            title: "Retries",
            type: "object",
            properties: {
              times: { type: "integer", minimum: 0, default: 3 },
              firstWait: { type: "number", exclusiveMinimum: 0, default: 0.5 },
            },
            required: [],
          },
          Proxy: {
            title: "Proxy",
            description: "The proxy to the broker.\n\nSecond paragraph.",
            type: "object",
            properties: { kind: { enum: ["http"] }, host: { type: "string" } },
            required: ["kind", "host"],
          },
          Node: { type: "object", properties: { below: { $ref: "#/$defs/Node" } }, required: [] },
        },
      },
      secrets: ["password"],
      queries: [
        {
          name: "topic",
          kind: "stream",
          help: "The messages of one sensor.",
          pattern: "topic/{site}/{file:rest}/{hz:int}",
          fields: { site: "segment", file: "rest", hz: "int" },
          schema: {
            type: "object",
            properties: {
              site: { type: "string", description: "Where the sensor is" },
              file: { type: "string" },
              hz: { type: "integer", minimum: 1, maximum: 100, default: 1, title: "Rate" },
            },
            required: ["site", "file"],
          },
          suggest: ["site"],
        },
        {
          name: "alive",
          kind: "stream",
          pattern: "alive",
          fields: {},
          schema: { type: "object", properties: {}, required: [] },
          suggest: [],
        },
        {
          name: "compare",
          kind: "query",
          schema: {
            type: "object",
            properties: {
              how: { enum: ["difference", "ratio"], default: "difference" },
              strict: { type: "boolean", default: false },
            },
            required: [],
          },
        },
      ],
    },
  ],
};
