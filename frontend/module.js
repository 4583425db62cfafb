// The data source in Grafana's browser side: queries and settings as JSON texts. Grafana's loader
// takes AMD; nothing is bundled, everything comes from the host, so that one file fits 9.4 and newer.
define(["react", "@grafana/data", "@grafana/runtime", "@grafana/ui"], function (React, data, runtime, ui) {
  "use strict";
  var h = React.createElement;

  class AioStreamDataSource extends runtime.DataSourceWithBackend {
    constructor(settings) {
      super(settings);
    }
  }

  // A text box of JSON that hands on every object it can read, and says so when it cannot.
  function JsonBox(props) {
    var text = React.useState(JSON.stringify(props.value, null, 1));
    var wrong = React.useState("");
    function change(event) {
      text[1](event.currentTarget.value);
      try {
        var value = JSON.parse(event.currentTarget.value);
        if (value === null || typeof value !== "object" || Array.isArray(value)) {
          throw new Error("not an object");
        }
        wrong[1]("");
        props.onChange(value);
      } catch (error) {
        wrong[1](String(error.message));
      }
    }
    return h("div", null,
      h("label", { className: "gf-form-label", style: { width: "auto" } }, props.label),
      h(ui.TextArea, { rows: 4, value: text[0], onChange: change, onBlur: props.onBlur, "aria-label": props.label }),
      wrong[0] ? h("div", { role: "alert" }, "Not JSON: " + wrong[0]) : null);
  }

  var GRAFANAS_OWN = ["refId", "key", "datasource", "hide"];

  function QueryEditor(props) {
    var own = { queryType: "", withStreaming: true };
    var saved = {};
    Object.keys(props.query).forEach(function (name) {
      if (GRAFANAS_OWN.indexOf(name) < 0) { saved[name] = props.query[name]; }
    });
    if (Object.keys(saved).length) { own = saved; }
    return h(JsonBox, {
      label: "Query: the stream (queryType), its fields, withStreaming",
      value: own,
      onChange: function (value) {
        var query = { refId: props.query.refId, key: props.query.key, datasource: props.query.datasource, hide: props.query.hide };
        props.onChange(Object.assign(query, value));
      },
      onBlur: props.onRunQuery,
    });
  }

  function ConfigEditor(props) {
    var options = props.options;
    return h(JsonBox, {
      label: 'Settings (jsonData), for example {"source": "host"}',
      value: options.jsonData || {},
      onChange: function (value) {
        props.onOptionsChange(Object.assign({}, options, { jsonData: value }));
      },
    });
  }

  var plugin = new data.DataSourcePlugin(AioStreamDataSource)
    .setConfigEditor(ConfigEditor)
    .setQueryEditor(QueryEditor);
  return { plugin: plugin };
});
