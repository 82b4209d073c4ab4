{{/* What every container of Airflow has in common. */}}
{{- define "tidewheel.airflowContainer" -}}
image: {{ include "tidewheel.image" (list . "airflow") }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
envFrom:
  - configMapRef: {name: {{ include "tidewheel.name" . }}-airflow}
{{ include "tidewheel.containerSecurity" . }}
{{- end }}

{{- define "tidewheel.airflowMounts" -}}
- {name: home, mountPath: /var/lib/airflow}
- {name: tmp, mountPath: /tmp}
{{ include "tidewheel.secretsMount" . }}
{{- end }}

{{- define "tidewheel.airflowVolumes" -}}
{{- $database := "TIDEWHEEL_AIRFLOW_DATABASE_PASSWORD" -}}
{{- $stores := list (include "tidewheel.storesSecret" .) (dict $database $database) -}}
{{- $own := list (include "tidewheel.airflowSecret" .) (dict "FERNET_KEY" "fernet-key" "JWT_SECRET" "jwt-secret" "API_SECRET_KEY" "api-secret-key") -}}
- {name: home, emptyDir: {sizeLimit: 2Gi}}
- {name: tmp, emptyDir: {sizeLimit: 512Mi}}
{{ include "tidewheel.secretsVolume" (dict "keys" (list $stores $own)) }}
{{- end }}

{{- define "tidewheel.migrationsJob" -}}
backoffLimit: 6
activeDeadlineSeconds: 1200
ttlSecondsAfterFinished: 86400
template:
  metadata:
    labels: {{- include "tidewheel.component" (list . "airflow-migrations") | nindent 6 }}
  spec:
    restartPolicy: OnFailure
    serviceAccountName: {{ include "tidewheel.name" . }}-server
    {{- include "tidewheel.pod" . | nindent 4 }}
    initContainers:
      {{- include "tidewheel.waitForDatabase" (list . "airflow") | nindent 6 }}
    containers:
      - name: migrations
        {{- include "tidewheel.airflowContainer" . | nindent 8 }}
        args: [db, migrate]
        resources: {{- toYaml .Values.airflow.dagProcessor.resources | nindent 10 }}
        volumeMounts: {{- include "tidewheel.airflowMounts" . | nindent 10 }}
    volumes: {{- include "tidewheel.airflowVolumes" . | nindent 6 }}
{{- end }}
