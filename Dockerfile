# docker build -t mri-transfer .                               for processors
# docker build -t mri-transfer --build-arg EXTRAS=gpu .        for NVIDIA GPUs (the host needs the driver and its container toolkit)
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" mri-transfer demo            (with --gpus all before -v)
FROM python:3.13-slim
ARG EXTRAS=dicom,nrrd
COPY . /src
RUN pip install --no-cache-dir "/src[$EXTRAS]" && rm -rf /src
# Whoever --user names has no home, and Keras and matplotlib want one.
ENV HOME=/tmp
WORKDIR /data
ENTRYPOINT ["mri-transfer"]
CMD ["--help"]
