package main

import (
	"bytes"
	"encoding/json"

	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
)

// blob is bytes for the plugin: the bytes of a JSON string, or any other JSON value in compact form.
type blob []byte

func (b *blob) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*b = nil
		return nil
	}
	if text[0] == '"' {
		var raw string
		err := json.Unmarshal(text, &raw)
		*b = []byte(raw)
		return err
	}
	var compact bytes.Buffer
	err := json.Compact(&compact, text)
	*b = compact.Bytes()
	return err
}

type userArguments struct {
	Login string `json:"login"`
	Name  string `json:"name"`
	Email string `json:"email"`
	Role  string `json:"role"`
}

// contextArguments has Grafana's defaults; a command replaces single values.
type contextArguments struct {
	OrgID         int64             `json:"orgId"`
	PluginID      string            `json:"pluginId"`
	PluginVersion string            `json:"pluginVersion"`
	UserAgent     string            `json:"userAgent"`
	UID           string            `json:"uid"`
	Name          string            `json:"name"`
	ID            int64             `json:"id"`
	URL           string            `json:"url"`
	JSONData      blob              `json:"jsonData"`
	Secure        map[string]string `json:"secure"`
	Updated       int64             `json:"updated"`
	User          *userArguments    `json:"user"`
	Namespace     string            `json:"namespace"`
	Config        map[string]string `json:"config"`
	DataSource    bool              `json:"datasource"` // false: a call without data source settings
	App           bool              `json:"app"`        // true: empty app settings, as in Grafana 9.4
}

// goZeroTimeMS is the lastUpdatedMS of app settings in Grafana 9.4.
const goZeroTimeMS = -6795364578871

// pluginContext makes the message from a command's optional "ctx".
func pluginContext(text json.RawMessage) (*pluginv2.PluginContext, error) {
	given := &contextArguments{
		OrgID: 1, PluginID: "conformance-test-datasource", PluginVersion: "1.0.0",
		UserAgent: "Grafana/12.0.0 (linux; amd64)", UID: "conformance", Name: "Conformance", ID: 1,
		JSONData: blob("{}"), Updated: 1_700_000_000_000, Namespace: "default", DataSource: true,
		User: &userArguments{"admin", "Admin", "admin@localhost", "Admin"},
	}
	if len(text) > 0 {
		if err := decode(text, given); err != nil {
			return nil, failf("Host", "ctx: %v", err)
		}
	}
	if given.Config == nil {
		given.Config = map[string]string{"GF_APP_URL": "http://localhost:3000/"}
	}
	message := &pluginv2.PluginContext{
		OrgId: given.OrgID, PluginId: given.PluginID, PluginVersion: given.PluginVersion,
		UserAgent: given.UserAgent, Namespace: given.Namespace, GrafanaConfig: given.Config,
	}
	if user := given.User; user != nil {
		message.User = &pluginv2.User{
			Login: user.Login, Name: user.Name, Email: user.Email, Role: user.Role,
		}
	}
	if given.DataSource {
		message.DataSourceInstanceSettings = &pluginv2.DataSourceInstanceSettings{
			Id: given.ID, Uid: given.UID, Name: given.Name, Url: given.URL, JsonData: given.JSONData,
			DecryptedSecureJsonData: given.Secure, LastUpdatedMS: given.Updated,
		}
	}
	if given.App {
		message.AppInstanceSettings = &pluginv2.AppInstanceSettings{LastUpdatedMS: goZeroTimeMS}
	}
	return message, nil
}
