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
{{- $images := (index . 0).Values.images -}}
{{ $images.repository }}/{{ index . 1 }}:{{ $images.tag | default (index . 0).Chart.AppVersion }}{{ with get $images.digests (index . 1) }}@{{ . }}{{ end }}
{{- end }}

{{/* What every pod has in common: restricted, no token by itself, and where it may run. */}}
{{- define "tidewheel.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.scheduling.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Replicas go to different nodes where there are any; (list . "controller"). */}}
{{- define "tidewheel.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "tidewheel.selector" . | nindent 8 }}
{{- end }}

{{- define "tidewheel.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "tidewheel.name" (index . 0) }}-{{ index . 1 }}
  namespace: {{ (index . 0).Release.Namespace }}
  labels: {{- include "tidewheel.component" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "tidewheel.selector" . | nindent 6 }}
{{- end }}

{{/* A Job's name: another revision or content makes another Job, since a Job cannot be changed; (list . "stores" SPEC). */}}
{{- define "tidewheel.jobName" -}}
{{- $root := index . 0 -}}
{{ include "tidewheel.name" $root }}-{{ index . 1 }}-{{ printf "%d %s" (int $root.Release.Revision) (index . 2) | sha256sum | trunc 8 }}
{{- end }}

{{/* The volume of a store. */}}
{{- define "tidewheel.claim" -}}
volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with (index . 0).Values.storageClass }}
      storageClassName: {{ . | quote }}
      {{- end }}
      resources: {requests: {storage: {{ index . 1 }}}}
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

{{/* Secrets are files, and a process makes its own environment of them: no description of a pod tells where to look. */}}
{{- define "tidewheel.command" -}}
command: [sh, -ec, 'for file in /etc/tidewheel/secrets/[A-Z]*; do export "${file##*/}=$(cat "$file")"; done; exec "$@"', {{ . }}]
{{- end }}

{{- define "tidewheel.secretsMount" -}}
- {name: secrets, mountPath: /etc/tidewheel/secrets, readOnly: true}
{{- end }}

{{/* One file per variable. whole: Secrets with all their keys; keys: pairs of a Secret and variable -> key;
     cloud: the Secret with AWS_..., unless the pod's role replaces them. */}}
{{- define "tidewheel.secretsVolume" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range .whole }}
      - secret: {name: {{ . }}}
      {{- end }}
      {{- range .keys }}
      - secret:
          name: {{ first . }}
          items:
            {{- range $variable, $key := last . }}
            - {path: {{ $variable }}, key: {{ $key }}}
            {{- end }}
      {{- end }}
      {{- with .cloud }}
      - secret:
          name: {{ . }}
          optional: true
          items: [{path: AWS_ACCESS_KEY_ID, key: AWS_ACCESS_KEY_ID}, {path: AWS_SECRET_ACCESS_KEY, key: AWS_SECRET_ACCESS_KEY}]
      {{- end }}
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

{{- define "tidewheel.mlflowSecret" -}}
{{ .Values.secrets.existingMlflow | default (printf "%s-mlflow" (include "tidewheel.name" .)) }}
{{- end }}

{{- define "tidewheel.airflowSecret" -}}
{{ .Values.secrets.existingAirflow | default (printf "%s-airflow" (include "tidewheel.name" .)) }}
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

{{/* An init container that waits until a database lets its user in, by the pod's secrets; (list . "mlflow"). */}}
{{- define "tidewheel.waitForDatabase" -}}
{{- $root := index . 0 -}}
- name: wait-for-database
  image: {{ include "tidewheel.image" (list $root "platform") }}
  imagePullPolicy: {{ $root.Values.images.pullPolicy }}
  {{- include "tidewheel.command" "wait" | nindent 2 }}
  args: [python, -m, tidewheel.apps.bootstrap, wait, --database, {{ index . 1 }}, --timeout-s, "900"]
  env:
    - {name: TIDEWHEEL_POSTGRES_URL, value: {{ include "tidewheel.postgresUrl" $root | quote }}}
  resources: {{- toYaml $root.Values.bootstrap.resources | nindent 4 }}
  {{- include "tidewheel.containerSecurity" $root | nindent 2 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- include "tidewheel.secretsMount" . | nindent 4 }}
{{- end }}
