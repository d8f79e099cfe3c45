# The book's notebooks in JupyterLab, with all they need:
#     docker build --tag transfer-learning .
#     docker run --rm --publish 8888:8888 transfer-learning
FROM python:3.12-slim

WORKDIR /book
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt

COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && useradd --create-home reader \
    && chown --recursive reader /book

USER reader
ENV TF_CPP_MIN_LOG_LEVEL=3
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "notebooks"]
