{{- define "tidewheel.name" -}}
{{- if contains "tidewheel" .Release.Name }}{{ .Release.Name | trunc 30 | trimSuffix "-" }}{{ else }}{{ printf "%s-tidewheel" .Release.Name | trunc 30 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "tidewheel.labels" -}}
app.kubernetes.io/part-of: tidewheel
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Labels of one component; (list . "mlflow"). */}}
{{- define "tidewheel.component" -}}
app.kubernetes.io/name: {{ index . 1 }}
{{ include "tidewheel.labels" (index . 0) }}
{{- end }}

{{- define "tidewheel.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{/* One of our own images; (list . "serving"). */}}
{{- define "tidewheel.image" -}}
{{ (index . 0).Values.images.repository }}/{{ index . 1 }}:{{ (index . 0).Values.images.tag | default (index . 0).Chart.AppVersion }}
{{- end }}

{{- define "tidewheel.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Restricted, for images that run as this user; (list . 10001). */}}
{{- define "tidewheel.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ . }}
  runAsGroup: {{ . }}
  fsGroup: {{ . }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
enableServiceLinks: false
{{- end }}

{{- define "tidewheel.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* The token of a pod that talks to the API server, without automounting. */}}
{{- define "tidewheel.tokenVolume" -}}
- name: token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}

{{- define "tidewheel.tokenMount" -}}
- {name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end }}

{{- define "tidewheel.envSecret" -}}
{{ .Values.secrets.existingSecret | default (printf "%s-secrets" (include "tidewheel.name" .)) }}
{{- end }}

{{- define "tidewheel.controlSecret" -}}
{{ .Values.secrets.existingControlSecret | default (printf "%s-control" (include "tidewheel.name" .)) }}
{{- end }}

{{- define "tidewheel.storesSecret" -}}
{{ .Values.secrets.existingStoresSecret | default (printf "%s-stores" (include "tidewheel.name" .)) }}
{{- end }}

{{- define "tidewheel.signingKey" -}}
{{ .Values.secrets.existingSigningKey | default (printf "%s-signing-key" (include "tidewheel.name" .)) }}
{{- end }}

{{- define "tidewheel.trustedKeys" -}}
{{ .Values.secrets.existingTrustedKeys | default (printf "%s-trusted-keys" (include "tidewheel.name" .)) }}
{{- end }}

{{- define "tidewheel.postgresHost" -}}
{{- if .Values.postgresql.enabled }}{{ include "tidewheel.name" . }}-postgresql{{ else }}{{ required "postgresql.external.host is needed where postgresql.enabled is false" .Values.postgresql.external.host }}{{ end -}}
{{- end }}

{{- define "tidewheel.postgresPort" -}}
{{- if .Values.postgresql.enabled }}5432{{ else }}{{ .Values.postgresql.external.port }}{{ end -}}
{{- end }}

{{- define "tidewheel.postgresUrl" -}}
postgresql://{{ if .Values.postgresql.enabled }}postgres{{ else }}{{ .Values.postgresql.external.superuser }}{{ end }}@{{ include "tidewheel.postgresHost" . }}:{{ include "tidewheel.postgresPort" . }}
{{- end }}

{{- define "tidewheel.objectStore" -}}
{{- if .Values.objectStore.enabled }}s3://{{ .Values.objectStore.bucket }}?endpoint=http://{{ include "tidewheel.name" . }}-object-store:8333{{ else }}{{ required "objectStore.externalUrl is needed where objectStore.enabled is false" .Values.objectStore.externalUrl }}{{ end -}}
{{- end }}

{{- define "tidewheel.mlflowUri" -}}
{{- if .Values.mlflow.enabled }}http://{{ include "tidewheel.name" . }}-mlflow:5000{{ else }}{{ required "mlflow.externalUri is needed where mlflow.enabled is false" .Values.mlflow.externalUri }}{{ end -}}
{{- end }}

{{- define "tidewheel.onlineStore" -}}
{{- if .Values.valkey.enabled }}redis://{{ include "tidewheel.name" . }}-valkey:6379/0{{ else }}{{ required "valkey.externalUrl is needed where valkey.enabled is false" .Values.valkey.externalUrl }}{{ end -}}
{{- end }}

{{- define "tidewheel.eventLog" -}}
{{- if .Values.kafka.enabled }}kafka://{{ include "tidewheel.name" . }}-kafka:9092{{ else }}{{ required "kafka.externalUrl is needed where kafka.enabled is false" .Values.kafka.externalUrl }}{{ end -}}
{{- end }}

{{/* An init container that waits until a database lets its user in; (list . "mlflow"). */}}
{{- define "tidewheel.waitForDatabase" -}}
{{- $root := index . 0 }}{{ $database := index . 1 -}}
- name: wait-for-database
  image: {{ include "tidewheel.image" (list $root "platform") }}
  imagePullPolicy: {{ $root.Values.images.pullPolicy }}
  args: [tidewheel.apps.bootstrap, wait, --database, {{ $database }}, --timeout-s, "900"]
  env:
    - {name: TIDEWHEEL_POSTGRES_URL, value: {{ include "tidewheel.postgresUrl" $root | quote }}}
    - name: TIDEWHEEL_{{ if eq $database "tidewheel" }}JOURNAL{{ else }}{{ upper $database }}_DATABASE{{ end }}_PASSWORD
      valueFrom: {secretKeyRef: {name: {{ include "tidewheel.storesSecret" $root }}, key: TIDEWHEEL_{{ if eq $database "tidewheel" }}JOURNAL{{ else }}{{ upper $database }}_DATABASE{{ end }}_PASSWORD}}
  resources: {{- toYaml $root.Values.bootstrap.resources | nindent 4 }}
  {{- include "tidewheel.containerSecurity" . | nindent 2 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "tidewheel.airflowEnvironment" -}}
envFrom:
  - configMapRef: {name: {{ include "tidewheel.name" . }}-airflow}
env:
  - {name: DATABASE_PASSWORD, valueFrom: {secretKeyRef: {name: {{ include "tidewheel.storesSecret" . }}, key: TIDEWHEEL_AIRFLOW_DATABASE_PASSWORD}}}
  - {name: AIRFLOW__DATABASE__SQL_ALCHEMY_CONN, value: "postgresql+psycopg2://airflow:$(DATABASE_PASSWORD)@{{ include "tidewheel.postgresHost" . }}:{{ include "tidewheel.postgresPort" . }}/airflow"}
  - {name: AIRFLOW__CORE__FERNET_KEY, valueFrom: {secretKeyRef: {name: {{ include "tidewheel.name" . }}-airflow, key: fernet-key}}}
  - {name: AIRFLOW__API_AUTH__JWT_SECRET, valueFrom: {secretKeyRef: {name: {{ include "tidewheel.name" . }}-airflow, key: jwt-secret}}}
  - {name: AIRFLOW__API__SECRET_KEY, valueFrom: {secretKeyRef: {name: {{ include "tidewheel.name" . }}-airflow, key: api-secret-key}}}
{{- end }}
